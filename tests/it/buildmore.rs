//! `creel build`: what is remembered of builds.

use std::fs;

use serde_json::Value;

use crate::build::Lab;

const SMALL: &str = "FROM base:1 AS one\nARG TOKEN\nRUN echo said once > /made && cat /made\nFROM one AS two\nRUN cat /made\n";

impl Lab {
    fn history(&self, args: &[&str]) -> String {
        self.ok(&[&["build", "history"], args].concat()).out
    }

    /// What is known of a build.
    fn known(&self, build: &str) -> Value {
        serde_json::from_str(&self.history(&["inspect", "--format", "json", build])).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_are_remembered() {
    let mut lab = Lab::new().await;
    assert_eq!(lab.history(&["ls"]), "BUILD ID   NAME   STATUS   CREATED AT   DURATION\n");
    assert!(lab.says(&["build", "history", "logs"], None).err.contains("no such build"));
    let (image, _) = lab.build(SMALL, &["-t", "kept:1", "--target", "two", "--build-arg", "TOKEN=hush-hush"]);
    lab.fails("FROM base:1\nRUN echo about to fail; exit 7\n", &[]);
    lab.daemon.kill();
    lab.daemon.run().await;
    lab.build(SMALL, &["-t", "kept:1", "--target", "two", "--build-arg", "TOKEN=hush-hush"]);

    let rows = lab.history(&["ls", "--format", "{{.Name}} {{.Status}} {{.CachedSteps}}"]);
    assert_eq!(rows, "context (two) Completed 2\ncontext Error 0\ncontext (two) Completed 0\n");
    assert_eq!(lab.history(&["ls", "-q", "--filter", "status=error"]).lines().count(), 1);
    assert!(!lab.says(&["build", "history", "ls", "--filter", "colour=red"], None).err.is_empty());

    let first = lab.known("^2");
    assert_eq!((&first["Image"], &first["Target"], &first["Tags"][0]), (&image.into(), &"two".into(), &"kept:1".into()));
    assert_eq!(first["BuildArgs"], serde_json::json!(["TOKEN"]));
    let steps = first["Steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["Name"] == "[two 2/2] RUN cat /made" && step["Seconds"].is_number()), "{first}");
    let failed = lab.known("^1");
    assert!(failed["Error"]["Message"].as_str().unwrap().contains("exit code: 7"), "{failed}");
    assert!(failed["Error"]["Source"].as_str().unwrap().contains(">>> RUN echo about"), "{failed}");
    assert!(lab.history(&["inspect"]).contains("Build Args:     TOKEN\n"));

    let said = lab.ok(&["build", "history", "logs", "^1"]).err;
    assert!(said.contains(" about to fail\n") && said.contains("exit code: 7") && said.contains("[2/2] RUN echo"), "{said}");
    assert!(lab.ok(&["builder", "history", "logs", "^2"]).err.contains(" said once\n"));

    let id = lab.history(&["ls", "-q", "--filter", "status=error"]);
    assert!(lab.history(&["rm", id.trim()]).starts_with(id.trim()));
    assert_eq!(lab.history(&["ls", "-q"]).lines().count(), 2);
    assert_eq!(lab.history(&["rm", "--all"]).lines().count(), 2);
    assert_eq!(lab.history(&["ls", "-q"]), "");
    let left = |directory: &str| fs::read_dir(lab.daemon.root().join(directory)).unwrap().count();
    assert_eq!((left("records/history"), left("records/transcripts")), (0, 0));
    // What they have made is still there.
    assert_eq!(lab.ok(&["run", "--rm", "kept:1", "cat", "/made"]).out, "said once\n");
    lab.finish().await;
}
