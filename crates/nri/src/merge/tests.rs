//! What comes of several plugins' wishes.

use super::*;
use crate::proto as p;

fn container() -> Container {
    Container {
        id: "c1".into(),
        args: vec!["sh".into()],
        env: vec!["A=1".into(), "B=2".into()],
        mounts: vec![mount("/a"), mount("/b")],
        annotations: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    }
}

fn mount(destination: &str) -> p::Mount {
    p::Mount { destination: destination.into(), r#type: "bind".into(), source: "/src".into(), options: Vec::new() }
}

fn env(key: &str, value: &str) -> p::KeyValue {
    p::KeyValue { key: key.into(), value: value.into() }
}

fn adjusting() -> Adjusting {
    Adjusting::new(PodSandbox::default(), container())
}

fn answer(adjust: ContainerAdjustment) -> CreateContainerResponse {
    CreateContainerResponse { adjust: Some(adjust), ..Default::default() }
}

fn limits(resources: LinuxResources) -> ContainerAdjustment {
    let linux = LinuxContainerAdjustment { resources: Some(resources), ..Default::default() };
    ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

fn cpu(shares: Option<u64>, quota: Option<i64>, cpus: &str) -> LinuxResources {
    let shares = shares.map(|value| p::OptionalUInt64 { value });
    let quota = quota.map(|value| p::OptionalInt64 { value });
    LinuxResources { cpu: Some(p::LinuxCpu { shares, quota, cpus: cpus.into(), ..Default::default() }), ..Default::default() }
}

fn update(id: &str, resources: LinuxResources, ignore_failure: bool) -> ContainerUpdate {
    let linux = Some(LinuxContainerUpdate { resources: Some(resources) });
    ContainerUpdate { container_id: id.into(), linux, ignore_failure }
}

#[test]
fn the_next_plugin_sees_what_the_one_before_did() {
    let mut adjusting = adjusting();
    let first = ContainerAdjustment {
        env: vec![env("C", "3"), env("-A", "")],
        mounts: vec![mount("/c"), mount("-/b")],
        annotations: [("n".to_owned(), "w".to_owned()), ("-k".to_owned(), String::new())].into(),
        args: vec!["ash".into()],
        ..Default::default()
    };
    adjusting.add("00-a", answer(first)).unwrap();
    let seen = adjusting.request().container.as_ref().unwrap();
    assert_eq!(seen.env, ["B=2", "C=3"]);
    assert_eq!(seen.mounts.iter().map(|m| m.destination.as_str()).collect::<Vec<_>>(), ["/a", "/c"]);
    assert_eq!(seen.annotations, [("n".to_owned(), "w".to_owned())].into());
    assert_eq!(seen.args, ["ash"]);
    adjusting.add("10-b", answer(ContainerAdjustment { env: vec![env("D", "4")], ..Default::default() })).unwrap();
    let outcome = adjusting.finish();
    assert_eq!(outcome.adjust.env, [env("-A", ""), env("C", "3"), env("D", "4")]);
    assert_eq!(outcome.adjust.mounts[0].destination, "-/b");
    assert!(outcome.adjust.annotations.contains_key("-k"));
    let owners = &outcome.owners.owners["c1"];
    assert_eq!(owners.compound[&(Field::Env as i32)].owners["D"], "10-b");
    assert_eq!(owners.simple[&(Field::Args as i32)], "00-a");
}

#[test]
fn two_plugins_never_decide_the_same_thing() {
    let conflict = |one: ContainerAdjustment, other: ContainerAdjustment| {
        let mut adjusting = adjusting();
        adjusting.add("00-a", answer(one)).unwrap();
        adjusting.add("10-b", answer(other)).map_err(|e| e.to_string())
    };
    let one = |value: &str| ContainerAdjustment { env: vec![env("X", value)], ..Default::default() };
    assert_eq!(conflict(one("1"), one("1")).unwrap_err(), "NRI plugins 00-a and 10-b both set Env \"X\"");
    let instead = ContainerAdjustment { env: vec![env("-X", ""), env("X", "2")], ..Default::default() };
    conflict(one("1"), instead).unwrap();
    let limit = |shares| limits(cpu(Some(shares), None, ""));
    assert_eq!(conflict(limit(2), limit(3)).unwrap_err(), "NRI plugins 00-a and 10-b both set CPUShares");
    conflict(limit(2), limits(cpu(None, Some(5000), "0-1"))).unwrap();
    let args = |args: &[&str]| ContainerAdjustment { args: args.iter().map(|a| (*a).into()).collect(), ..Default::default() };
    assert!(conflict(args(&["a"]), args(&["b"])).is_err());
    conflict(args(&["a"]), args(&["", "b"])).unwrap();
    let linux = |linux| ContainerAdjustment { linux: Some(linux), ..Default::default() };
    let score = |value| linux(LinuxContainerAdjustment { oom_score_adj: Some(p::OptionalInt { value }), ..Default::default() });
    assert!(conflict(score(1), score(1)).is_err());
    let path = |path: &str| linux(LinuxContainerAdjustment { cgroups_path: path.into(), ..Default::default() });
    assert!(conflict(path("/a"), path("/b")).is_err());
    let device = || {
        linux(LinuxContainerAdjustment {
            devices: vec![p::LinuxDevice { path: "/dev/x".into(), ..Default::default() }],
            ..Default::default()
        })
    };
    assert!(conflict(device(), device()).unwrap_err().contains("Devices \"/dev/x\""));
}

#[test]
fn a_plugin_may_say_a_thing_twice() {
    let mut adjusting = adjusting();
    let adjust = ContainerAdjustment { env: vec![env("X", "1"), env("X", "2")], ..Default::default() };
    adjusting.add("00-a", answer(adjust)).unwrap();
    assert_eq!(adjusting.request().container.as_ref().unwrap().env, ["A=1", "B=2", "X=1", "X=2"]);
    assert_eq!(adjusting.finish().adjust.env, [env("X", "2")]);
}

#[test]
fn what_says_nothing_changes_nothing() {
    let outcome = |adjust| {
        let mut adjusting = adjusting();
        adjusting.add("00-a", answer(adjust)).unwrap();
        adjusting.finish()
    };
    assert!(outcome(ContainerAdjustment { hooks: Some(Hooks::default()), ..limits(LinuxResources::default()) }).changes_nothing());
    assert!(outcome(limits(cpu(None, None, ""))).changes_nothing());
    assert!(!outcome(limits(cpu(None, None, "0"))).changes_nothing());
    assert!(!outcome(ContainerAdjustment { args: vec!["x".into()], ..Default::default() }).changes_nothing());
}

#[test]
fn updates_of_others_are_merged_by_container() {
    let mut updates = Updates::default();
    updates
        .add("00-a", vec![update("x", cpu(Some(2), None, ""), true), update("y", cpu(Some(9), None, ""), false)], Vec::new())
        .unwrap();
    updates.add("10-b", vec![update("x", cpu(None, Some(7), ""), false)], Vec::new()).unwrap();
    updates.add("20-c", vec![update("x", cpu(Some(4), Some(1), ""), true)], Vec::new()).unwrap();
    let error = updates.add("30-d", vec![update("y", cpu(Some(4), None, ""), false)], Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "NRI plugins 00-a and 30-d both set CPUShares");
    assert_eq!(updates.take("y"), Some(cpu(Some(9), None, "")));
    let (list, _) = updates.into_parts();
    assert_eq!(list, [update("x", cpu(Some(2), Some(7), ""), false)]);
}

#[test]
fn the_container_itself_is_adjusted_and_not_updated() {
    let response = CreateContainerResponse { update: vec![update("c1", cpu(Some(2), None, ""), true)], ..Default::default() };
    assert!(matches!(adjusting().add("00-a", response), Err(Error::UpdateOfCreated { .. })));
}
