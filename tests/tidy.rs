//! The house rules that a program can check: stairs, first lines, names, unsafe, debts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours.
fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "target" {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for dir in ["src", "crates", "tests", "fuzz"] {
        walk(&root().join(dir), &mut found);
    }
    found
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = sources().into_iter().filter(|p| !fs::read_to_string(p).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "first line is not //!: {silent:#?}");
}

#[test]
fn no_room_is_called_nothing() {
    let forbidden = ["common", "utils", "util", "helpers", "helper", "types", "errors", "constants", "misc"];
    let bad: Vec<_> = sources().into_iter().filter(|p| forbidden.contains(&p.file_stem().unwrap().to_str().unwrap())).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn unsafe_lives_in_sys_alone() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "extern \"C\""];
    let bad: Vec<_> = sources()
        .into_iter()
        .filter(|p| !p.starts_with(root().join("crates/sys")) && !p.ends_with("tests/tidy.rs"))
        .filter(|p| {
            fs::read_to_string(p).unwrap().lines().any(|l| !l.trim_start().starts_with("//") && words.iter().any(|w| l.contains(w)))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn debts_have_a_number() {
    let bad: Vec<_> = sources()
        .into_iter()
        .filter(|p| !p.ends_with("tests/tidy.rs"))
        .filter(|p| fs::read_to_string(p).unwrap().lines().any(|l| l.contains("TODO") && !l.contains("TODO(#")))
        .collect();
    assert!(bad.is_empty(), "TODO without (#NUMBER): {bad:#?}");
}

/// Our crates and which of ours they depend on, as cargo sees it (dev-dependencies left out).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<_> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let of = |p: &serde_json::Value| {
        let list = p["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        list.map(|d| d["name"].as_str().unwrap()).filter(|n| ours.contains(n)).map(str::to_owned).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), of(p))).collect()
}

/// The table in ARCHITECTURE.md: `| name | sentence | colour | a, b |`.
#[test]
fn the_stairs_are_as_architecture_says() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows =
        text.lines().filter(|l| l.starts_with("| `")).map(|l| l.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let table: BTreeMap<String, BTreeSet<String>> = rows
        .filter(|r| r.len() == 4)
        .map(|r| {
            let list = r[3].split(',').map(|d| d.trim().trim_matches('`').to_owned());
            (r[0].trim_matches('`').to_owned(), list.filter(|d| !d.is_empty() && d != "–").collect())
        })
        .collect();
    assert_eq!(table, dependencies());
}

#[test]
fn rooms_of_one_floor_have_no_doors_between_them() {
    let floor_1 = ["layer", "store", "registry", "net", "container", "shim-proto", "seccomp", "nri"];
    let dependencies = dependencies();
    for room in floor_1 {
        let doors: Vec<_> = dependencies[room].iter().filter(|d| !["model", "sys"].contains(&d.as_str())).collect();
        assert!(doors.is_empty(), "{room} depends on {doors:?}");
    }
}
