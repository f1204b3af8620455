//! Specifications as vendors write them, and as they should not.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use crate::{DeviceType, Edits, Error, Format, HookStage, parse, resolve};

const FULL: &str = r#"
---
cdiVersion: "1.1.0"
kind: vendor.com/gpu.x
annotations: {a: b}
containerEdits:
  env:
  - COMMON=1
  hooks:
  - hookName: createContainer
    path: /usr/bin/hook
    args: [hook, "--x"]
    env: [A=b]
    timeout: 5
devices:
- name: 0
  annotations: {}
  containerEdits:
    deviceNodes:
    - path: /dev/vendor0
      hostPath: /dev/null
      type: c
      major: 1
      minor: 3
      fileMode: 438
      permissions: rw
      uid: 5
      gid: 6
    - path: /dev/plain
    additionalGIDs: [0, 44]
- name: all
  containerEdits:
    mounts:
    - hostPath: /usr/lib/libvendor.so
      containerPath: /usr/lib/libvendor.so
      options: [ro, nosuid, nodev, bind]
      type: none
    intelRdt:
      closID: gold
      l3CacheSchema: "L3:0=f"
      schemata: ["MB:0=50"]
    netDevices:
    - hostInterfaceName: eth7
      name: net1
"#;

#[test]
fn everything_that_a_vendor_can_say() {
    let spec = parse(FULL.as_bytes(), Format::Yaml).unwrap();
    assert_eq!((spec.kind.as_str(), spec.common.env.as_slice()), ("vendor.com/gpu.x", ["COMMON=1".to_owned()].as_slice()));
    let hook = &spec.common.hooks[0];
    assert_eq!((hook.stage, hook.path.as_str(), hook.timeout), (HookStage::CreateContainer, "/usr/bin/hook", Some(5)));
    let zero = &spec.devices[0].1;
    assert_eq!((spec.devices[0].0.as_str(), zero.additional_gids.as_slice()), ("0", [44].as_slice()));
    let node = &zero.device_nodes[0];
    assert_eq!((node.kind, node.numbers, node.mode), (Some(DeviceType::Char), Some((1, 3)), Some(0o666)));
    assert_eq!((node.uid, node.gid, node.permissions.mknod), (Some(5), Some(6), false));
    let plain = &zero.device_nodes[1];
    assert_eq!((plain.host_path.as_str(), plain.numbers, plain.permissions.mknod), ("/dev/plain", None, true));
    let all = &spec.devices[1].1;
    assert_eq!(all.mounts[0].options, ["ro", "nosuid", "nodev", "bind"]);
    assert_eq!(all.intel_rdt.as_ref().unwrap().schemata, ["L3:0=f", "MB:0=50"]);
    assert_eq!(all.net_devices[0].name, "net1");
}

/// A JSON specification of one device with these edits.
fn json(version: &str, kind: &str, device: &str, edits: &str) -> String {
    format!(r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{device}","containerEdits":{edits}}}]}}"#)
}

#[test]
fn what_is_wrong_is_said() {
    let ok = r#"{"env":["A=b"]}"#;
    assert!(parse(json("v0.3.0", "v/c", "d", ok).as_bytes(), Format::Json).is_ok());
    for (bad, why) in [
        (json("0.2.0", "v/c", "d", ok), "cdiVersion \"0.2.0\""),
        (json("2.0.0", "v/c", "d", ok), "cdiVersion \"2.0.0\""),
        (json("1.0.0", "v", "d", ok), "kind \"v\""),
        (json("0.5.0", "v/c.d", "d", ok), "0.6.0"),
        (json("0.4.0", "v/c", "1", ok), "0.5.0"),
        (json("1.0.0", "v/c", "d/e", ok), "device \"d/e\""),
        (json("1.0.0", "v/c", "d", "{}"), "no containerEdits"),
        (json("1.0.0", "v/c", "d", r#"{"env":["A"]}"#), "NAME=VALUE"),
        (json("1.0.0", "v/c", "d", r#"{"env":["A=b"],"more":1}"#), "unknown field `more`"),
        (json("0.6.0", "v/c", "d", r#"{"additionalGids":[1]}"#), "0.7.0"),
        (json("1.0.0", "v/c", "d", r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"}]}"#), "1.1.0"),
        (
            json(
                "1.1.0",
                "v/c",
                "d",
                r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"},{"hostInterfaceName":"a","name":"c"}]}"#,
            ),
            "twice",
        ),
        (json("1.0.0", "v/c", "d", r#"{"deviceNodes":[{"path":"dev/x"}]}"#), "absolute"),
        (json("0.4.0", "v/c", "d", r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y"}]}"#), "0.5.0"),
        (json("1.0.0", "v/c", "d", r#"{"deviceNodes":[{"path":"/dev/x","type":"q"}]}"#), "type"),
        (json("1.0.0", "v/c", "d", r#"{"deviceNodes":[{"path":"/dev/x","permissions":"x"}]}"#), "permissions"),
        (json("1.0.0", "v/c", "d", r#"{"deviceNodes":[{"path":"/dev/x","major":-1}]}"#), "number"),
        (json("0.3.0", "v/c", "d", r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"none"}]}"#), "0.4.0"),
        (json("1.0.0", "v/c", "d", r#"{"mounts":[{"hostPath":"/a","containerPath":"b"}]}"#), "absolute"),
        (json("1.0.0", "v/c", "d", r#"{"hooks":[{"hookName":"x","path":"/a"}]}"#), "hookName"),
        (json("1.0.0", "v/c", "d", r#"{"hooks":[{"hookName":"prestart","path":"a"}]}"#), "absolute"),
        (json("1.0.0", "v/c", "d", r#"{"hooks":[{"hookName":"prestart","path":"/a","timeout":0}]}"#), "timeout"),
        (json("1.0.0", "v/c", "d", r#"{"intelRdt":{"closID":"../x"}}"#), "closID"),
        (json("1.0.0", "v/c", "d", r#"{"intelRdt":{"enableMonitoring":true}}"#), "1.1.0"),
        (r#"{"cdiVersion":"1.0.0","kind":"v/c","devices":[]}"#.to_owned(), "no devices"),
        (json("1.0.0", "v/c", "d", ok).replace("}]}", r#"},{"name":"d","containerEdits":{"env":["A=b"]}}]}"#), "twice"),
        ("[".repeat(100_000), ""),
        (String::new(), ""),
    ] {
        let error = parse(bad.as_bytes(), Format::Json).unwrap_err();
        assert!(error.contains(why), "{why:?} <> {error}");
        // JSON is YAML.
        let error = parse(bad.as_bytes(), Format::Yaml).unwrap_err();
        assert!(error.contains(why), "{why:?} <> {error}");
    }
}

struct Node {
    home: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("etc")).unwrap();
        fs::create_dir(home.path().join("run")).unwrap();
        Self { home }
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn resolve(&self, devices: &[&str]) -> Result<Edits, Error> {
        let directories = ["etc", "run", "absent"].map(|name| self.home.path().join(name));
        resolve(&directories, &devices.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
}

fn one(device: &str, value: &str) -> String {
    json("1.0.0", "v.com/c", device, &format!(r#"{{"env":["X={value}"]}}"#))
}

#[test]
fn later_directories_win_and_one_directory_may_not_disagree() {
    let node = Node::new();
    node.put("etc/a.json", &one("d", "etc"));
    assert_eq!(node.resolve(&["v.com/c=d"]).unwrap().env, ["X=etc"]);
    let second = node.put("etc/b.json", &one("d", "other"));
    let error = node.resolve(&["v.com/c=d"]).unwrap_err();
    assert!(matches!(&error, Error::Conflict { second: path, .. } if *path == second), "{error}");
    node.put("run/c.json", &one("d", "run"));
    assert_eq!(node.resolve(&["v.com/c=d"]).unwrap().env, ["X=run"]);
    fs::remove_file(second).unwrap();
    node.put("run/c.json", &one("e", "run"));
    assert_eq!(node.resolve(&["v.com/c=d", "v.com/c=e", "v.com/c=d"]).unwrap().env, ["X=etc", "X=run"], "as the files are now");
}

#[test]
fn what_is_common_comes_once_and_first() {
    let node = Node::new();
    node.put("run/full.yaml", FULL);
    let edits = node.resolve(&["vendor.com/gpu.x=all", "vendor.com/gpu.x=0"]).unwrap();
    assert_eq!((edits.env.len(), edits.hooks.len(), edits.mounts.len(), edits.device_nodes.len()), (1, 1, 1, 2));
    assert_eq!(node.resolve(&[]).unwrap(), Edits::default());
}

#[test]
fn cr09_only_root_writes_specifications() {
    let node = Node::new();
    let path = node.put("etc/a.json", &one("d", "x"));
    let refused = |why: &str| {
        let error = node.resolve(&["v.com/c=d"]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    assert!(node.resolve(&["v.com/c=d"]).is_ok());
    chown(&path, Some(1000), None).unwrap();
    refused("belongs to uid 1000");
    chown(&path, Some(0), Some(1000)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    refused("mode 664");
    chown(&path, Some(0), Some(0)).unwrap();
    assert!(node.resolve(&["v.com/c=d"]).is_ok(), "root's group is root");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
    refused("mode 646");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(node.home.path().join("etc"), fs::Permissions::from_mode(0o1777)).unwrap();
    refused("mode 1777");
}

#[test]
fn what_cannot_be_read_is_named_when_a_device_is_missing() {
    let node = Node::new();
    node.put("etc/good.json", &one("d", "x"));
    node.put("etc/bad.yaml", "cdiVersion: [");
    node.put("etc/.ignored", "x");
    node.put("etc/long.json", &" ".repeat(2 << 20));
    symlink("nowhere", node.home.path().join("run/gone.json")).unwrap();
    fs::create_dir(node.home.path().join("run/directory.json")).unwrap();
    assert!(node.resolve(&["v.com/c=d"]).is_ok(), "others' faults are no matter");
    let error = node.resolve(&["v.com/c=missing"]).unwrap_err().to_string();
    let etc = Path::new(node.home.path());
    assert!(error.starts_with(&format!("CDI device v.com/c=missing is in no specification in {}/etc, ", etc.display())), "{error}");
    for part in ["bad.yaml: ", "long.json: longer than 1 MiB", "gone.json: No such file", "directory.json: not a regular file"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(matches!(resolve(&[], &["v/c=d".to_owned()]), Err(Error::Unknown { .. })));
}
