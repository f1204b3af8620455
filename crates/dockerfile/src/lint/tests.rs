//! One Dockerfile for every rule.

use std::collections::BTreeMap;

use super::*;
use crate::parse;

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(text: &str, ignore: &str, args: &[(&str, &str)]) -> Report {
    let file = parse(text.as_bytes()).unwrap();
    let automatic = pairs(&[("TARGETPLATFORM", "linux/amd64"), ("TARGETARCH", "amd64"), ("BUILDPLATFORM", "linux/amd64")]);
    let args = pairs(args);
    let ignore = Ignore::parse(ignore.as_bytes()).unwrap();
    let environment = |image: &str| (image != "unknown").then(|| vec!["FROM_IMAGE".to_owned()]);
    let known = Known { args: &args, automatic: &automatic, ignore: &ignore, environment: &environment };
    let stages = Stages::find(&file, &args, &automatic, "").unwrap();
    let all: Vec<usize> = (0..stages.stages.len()).collect();
    lint(text, &file, Some((&stages, &all)), &known).unwrap()
}

fn found(text: &str) -> Vec<String> {
    let one = |warning: &Warning| format!("{}:{} {}", warning.rule.name, warning.first, warning.detail);
    with(text, "", &[]).warnings.iter().map(one).collect()
}

#[test]
fn what_is_well_written_is_left_alone() {
    let text = "ARG TAG=1\n\nFROM --platform=$BUILDPLATFORM busybox:$TAG AS build\nARG TARGETARCH\nARG TAG\nENV A=1 B=$A_$TARGETARCH$TAG$FROM_IMAGE\n\
                WORKDIR /x\nWORKDIR y\nRUN echo $anything\nCOPY --chown=$A . .\nFROM scratch\nCOPY --from=build /x /\n\
                LABEL a=\"$PATH\"\nEXPOSE 80/tcp\nCMD [\"a\"]\n";
    assert_eq!(found(text), ["UndefinedVar:6 Usage of undefined variable '$A_'"]);
    assert_eq!(found("from busybox as b\nrun true\n"), Vec::<String>::new());
    assert_eq!(found("FROM a\nSHELL [\"x\"]\nCMD y\n"), Vec::<String>::new());
    assert_eq!(found("FROM unknown\nENV A=$WHO_KNOWS\nFROM unknown AS linux-x\nWORKDIR $A\n"), Vec::<String>::new());
}

#[test]
fn how_it_is_written() {
    for (text, wanted) in [
        ("FROM a AS Build\n", "StageNameCasing:1 Stage name 'Build' should be lowercase"),
        ("FROM --platform=$TARGETARCH a as b\n", "FromAsCasing:1 'as' and 'FROM' keywords' casing do not match"),
        ("from a AS b\n", "FromAsCasing:1 'AS' and 'from' keywords' casing do not match"),
        ("FROM a\nRUN a \\\n\n  b\n", "NoEmptyContinuation:3 Empty continuation line"),
        (
            "FROM a\nrun x\nRUN y\n",
            "ConsistentInstructionCasing:2 Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "from a\nRun x\n",
            "ConsistentInstructionCasing:2 Command 'Run' should match the case of the command majority (lowercase)",
        ),
        ("FROM a AS b\nFROM a AS b\n", "DuplicateStageName:2 Duplicate stage name \"b\", stage names should be unique"),
        ("FROM a AS scratch\n", "ReservedStageName:1 Stage name should not use the same name as reserved stage \"scratch\""),
        ("FROM a\nMAINTAINER me\n", "MaintainerDeprecated:2 Maintainer instruction is deprecated in favor of using label"),
        ("FROM a\nENV a b\n", "LegacyKeyValueFormat:2 \"ENV key=value\" should be used instead of legacy \"ENV key value\" format"),
        (
            "FROM a\nENV API_KEY=x\n",
            "SecretsUsedInArgOrEnv:2 Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\")",
        ),
        ("FROM a\nARG Token\n", "SecretsUsedInArgOrEnv:2 Do not use ARG or ENV instructions for sensitive data (ARG \"Token\")"),
    ] {
        assert_eq!(found(text), [wanted], "{text}");
    }
    assert_eq!(found("FROM a\nENV PUBLIC_KEY=x KEYS=y TOKEN_FILE=z MONKEY=1\n"), Vec::<String>::new());
}

#[test]
fn what_it_does() {
    for (text, wanted) in [
        (
            "FROM a\nCMD x\n",
            "JSONArgsRecommended:2 JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ),
        ("ARG BASE=a\nFROM b$BSAE\n", "UndefinedArgInFrom:2 FROM argument 'BSAE' is not declared (did you mean BASE?)"),
        (
            "FROM a\nWORKDIR x/y\n",
            "WorkdirRelativePath:2 Relative workdir \"x/y\" can have unexpected results if the base image changes",
        ),
        ("FROM a\nENV NAME=1\nFROM 0\nCOPY $NAEM /\n", "UndefinedVar:4 Usage of undefined variable '$NAEM'"),
        (
            "FROM a AS x\nENV NAME=1\nFROM x\nRUN --mount=type=cache,target=/$NAEM true\n",
            "UndefinedVar:4 Usage of undefined variable '$NAEM' (did you mean $NAME?)",
        ),
        ("FROM a\nCOPY <<E /x\n$who\nE\nCOPY <<\"E\" /x\n$who\nE\n", "UndefinedVar:2 Usage of undefined variable '$who'"),
        (
            "FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n",
            "MultipleInstructionsDisallowed:2 Multiple CMD instructions should not be used in the same stage because only the last \
             one will be used",
        ),
        (
            "FROM --platform=$TARGETPLATFORM a\n",
            "RedundantTargetPlatform:1 Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default \
             behavior",
        ),
        (
            "FROM --platform=linux/amd64 a AS b\n",
            "FromPlatformFlagConstDisallowed:1 FROM --platform flag should not use constant value \"linux/amd64\"",
        ),
        ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing:2 Defined protocol '80/TCP' in EXPOSE instruction should be lowercase"),
        (
            "FROM a\nEXPOSE 127.0.0.1:80:80\n",
            "ExposeInvalidFormat:2 EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
        ),
    ] {
        assert_eq!(found(text), [wanted], "{text}");
    }
    assert_eq!(found("FROM --platform=linux/amd64 a AS build-amd64\n"), Vec::<String>::new());
    let given = with("ARG TAG\nFROM busybox:$TAG\n", "", &[("TAG", "1")]).warnings;
    assert_eq!(given[0].detail, "Default value for ARG busybox:$TAG results in empty or invalid base image name");
}

#[test]
fn what_is_not_in_the_context() {
    let told = |source: &str, ignore: &str| {
        let report = with(&format!("FROM a\nCOPY {source} /\n"), ignore, &[]);
        report.warnings.into_iter().map(|warning| warning.detail).collect::<Vec<_>>()
    };
    assert_eq!(told("a/b.o", "*.txt\na\n"), ["Attempting to Copy file \"a/b.o\" that is excluded by .dockerignore"]);
    assert_eq!(told(". x.o", "**\n").len(), 2);
    for (source, ignore) in [(".", "*.o\n"), ("x.o", "*.o\n!x.o\n"), ("--from=b x.o", "*.o\n"), ("$X.o", "*.o\n")] {
        assert!(told(source, ignore).iter().all(|detail| detail.contains("undefined")), "{source}");
    }
}

#[test]
fn what_is_left_out_is_not_found() {
    let text = |directive: &str| format!("{directive}\nFROM a\nMAINTAINER me\nCMD x\n");
    assert_eq!(found(&text("# nothing")).len(), 2);
    assert_eq!(found(&text("# check=skip=MaintainerDeprecated,JSONArgsRecommended")).len(), 0);
    assert_eq!(found(&text("# check=skip=all")).len(), 0);
    assert_eq!(found("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\nENTRYPOINT x\n").len(), 1, "of this instruction only");
    let report = with(&text("# check=error=true"), "", &[]);
    assert_eq!(report.refusal().unwrap(), "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated");
    assert_eq!(with(&text("# nothing"), "", &[]).refusal(), None);
}

#[test]
fn comments_say_what_they_are_about() {
    let text = "# check=experimental=all\n# other\nARG a\n\n# b is it\nARG b\n# odd\n\nARG c\n# x\nFROM y AS z\n";
    let wanted = [
        "Comment for ARG should follow the format: `# a <description>`",
        "Comment for FROM should follow the format: `# z <description>`",
    ];
    assert_eq!(with(text, "", &[]).warnings.into_iter().map(|warning| warning.detail).collect::<Vec<_>>(), wanted);
}

#[test]
fn findings_have_an_end() {
    let text = format!("FROM a\n{}", "ENV a $b\n".repeat(5000));
    assert_eq!(with(&text, "", &[]).warnings.len(), MOST);
}
