//! Dockerfiles and .dockerignore: what is read has its place in the text, stages are made from earlier ones, checks end.
#![no_main]

use std::collections::BTreeMap;

use dockerfile::{Base, Expander, Ignore, Instruction, Stages, lint};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The first line is what is not in the context and an argument's value.
    let cut = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (given, text) = bytes.split_at(cut);
    let ignore = Ignore::parse(given).unwrap_or_default();
    let given = String::from_utf8_lossy(given).into_owned();
    drop(Expander::new(&|name: &str| (name != "none").then(|| given.clone()), '\\').word(&given));
    let file = match dockerfile::parse(text) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.line >= 1 && !error.to_string().is_empty());
            return;
        }
    };
    let lines = text.split(|byte| *byte == b'\n').count();
    let mut before = 0;
    for located in &file.instructions {
        assert!(before < located.first && located.first <= located.last && located.last <= lines);
        before = located.last;
        if let Instruction::OnBuild(trigger) = &located.instruction {
            dockerfile::parse(format!("FROM x\n{trigger}\n").as_bytes()).ok();
        }
    }
    let args = BTreeMap::from([("A".to_owned(), given.clone())]);
    let automatic = BTreeMap::from([("TARGETPLATFORM".to_owned(), "linux/amd64".to_owned())]);
    let stages = Stages::find(&file, &args, &automatic, "");
    if let Ok(stages) = &stages {
        assert!(stages.needed.contains(&stages.target) && stages.needed.is_sorted());
        for (number, stage) in stages.stages.iter().enumerate() {
            assert!(!matches!(stage.base, Base::Stage(base) if base >= number));
        }
    }
    let environment = |image: &str| (image.len() % 2 == 0).then(|| vec!["SET".to_owned()]);
    let known = lint::Known { args: &args, automatic: &automatic, ignore: &ignore, environment: &environment };
    let all: Vec<usize> = stages.as_ref().map(|stages| (0..stages.stages.len()).collect()).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    if let Ok(report) = lint::lint(&text, &file, stages.as_ref().ok().map(|stages| (stages, &all[..])), &known) {
        assert!(report.warnings.iter().all(|found| 1 <= found.first && found.last <= lines));
    }
});
