//! `--format json` and `inspect`: what is printed is what crates/cli/JSON.md says, no key more and none less.

use std::collections::{BTreeMap, BTreeSet};

use api::runtime as cri;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
    registry::Registry,
};

const DOCUMENT: &str = include_str!("../../crates/cli/JSON.md");

/// Of one kind of object: what its keys are said to be, by path; the ones that the test has met.
struct Section {
    name: &'static str,
    rows: BTreeMap<&'static str, Row>,
    met: BTreeSet<&'static str>,
}

struct Row {
    /// `string`, `number`, `boolean`, `null`, `object`, `array of T`, `map of T`.
    kinds: Vec<&'static str>,
    optional: bool,
}

/// Sections are headed `## NAME`; their rows are ``| `PATH` | TYPE | what it means |``.
fn sections() -> Vec<Section> {
    let mut sections = Vec::new();
    for line in DOCUMENT.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            sections.push(Section { name, rows: BTreeMap::new(), met: BTreeSet::new() });
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let (path, rest) = row.split_once("` | ").unwrap_or_else(|| panic!("{line}"));
        let (kinds, meaning) = rest.split_once(" | ").unwrap_or_else(|| panic!("{line}"));
        assert!(!meaning.trim_end_matches('|').trim().is_empty(), "no meaning: {line}");
        let optional = kinds.ends_with(", optional");
        let kinds = kinds.trim_end_matches(", optional").split(" or ").collect();
        let section = sections.last_mut().expect("rows are below a heading");
        assert!(section.rows.insert(path, Row { kinds, optional }).is_none(), "twice: {line}");
    }
    sections
}

impl Section {
    /// An object of this kind, or one in it.
    fn object(&mut self, at: &str, value: &Value, wrong: &mut Vec<String>) {
        let Value::Object(fields) = value else { return wrong.push(format!("{}: {at} is no object", self.name)) };
        for (key, value) in fields {
            self.value(&format!("{at}{key}"), value, wrong);
        }
        for (path, row) in &self.rows {
            let Some(key) = path.strip_prefix(at) else { continue };
            if !row.optional && !key.contains(['.', '[']) && !fields.contains_key(key) {
                wrong.push(format!("{}: `{path}` is not printed", self.name));
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value, wrong: &mut Vec<String>) {
        let row = self.rows.get_key_value(path).map(|(path, row)| (*path, row.kinds.clone()));
        let Some((path, kinds)) = row else {
            return wrong.push(format!("{}: `{path}` ({}) is not in the document", self.name, kind(value)));
        };
        self.met.insert(path);
        let said = kinds
            .iter()
            .find(|said| said.split(' ').next() == Some(kind(value)) || said.starts_with("map of") && value.is_object());
        let Some(said) = said else {
            return wrong.push(format!("{}: `{path}` is {}, not {}", self.name, kind(value), kinds.join(" or ")));
        };
        match (value, said.split_once(" of ")) {
            (Value::Object(_), None) => self.object(&format!("{path}."), value, wrong),
            (Value::Object(map), Some((_, of))) => {
                map.values().for_each(|value| self.element(&format!("{path}.*"), of, value, wrong))
            }
            (Value::Array(list), Some((_, of))) => {
                list.iter().for_each(|value| self.element(&format!("{path}[]"), of, value, wrong))
            }
            _ => {}
        }
    }

    /// Of an array or a map of `strings`, `numbers`, `objects`, `anything`; of what else has a row of its own.
    fn element(&mut self, path: &str, of: &str, value: &Value, wrong: &mut Vec<String>) {
        match of {
            "objects" => self.object(&format!("{path}."), value, wrong),
            "anything" => {}
            _ if self.rows.contains_key(path) => self.value(path, value, wrong),
            of if of.trim_end_matches('s') == kind(value) => {}
            of => wrong.push(format!("{}: {path} is {}, not one of the {of}", self.name, kind(value))),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What commands print, by the section that it belongs to.
struct Printed<'d> {
    daemon: &'d Daemon,
    values: Vec<(&'static str, Value)>,
}

impl Printed<'_> {
    /// One document: an array, or an object alone.
    fn document(&mut self, section: &'static str, args: &[&str]) {
        let text = self.daemon.creel_ok(&[&["--format", "json"][..], args].concat());
        match serde_json::from_str(&text).unwrap_or_else(|e| panic!("creel {args:?}: {e}: {text}")) {
            Value::Array(values) => {
                assert!(!values.is_empty(), "creel {args:?} prints nothing");
                self.values.extend(values.into_iter().map(|value| (section, value)));
            }
            value => self.values.push((section, value)),
        }
    }

    /// An object per line.
    fn lines(&mut self, section: &'static str, args: &[&str]) {
        let text = self.daemon.creel_ok(&[&["--format", "json"][..], args].concat());
        assert!(!text.is_empty(), "creel {args:?} prints nothing");
        let value = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("creel {args:?}: {e}: {line}"));
        self.values.extend(text.lines().map(|line| (section, value(line))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_is_what_is_documented() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    let registry = Registry::empty();
    let mut printed = Printed { daemon: &daemon, values: Vec::new() };
    let begin = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    images(&mut printed, &registry);
    containers(&mut printed);
    of_a_pod(&mut printed).await;
    printed.lines("creel events", &["events", "--since", &begin, "--until", "0s"]);
    daemon.creel_ok(&["rm", "-fv", "full", "plain"]);
    daemon.creel_ok(&["network", "rm", "front"]);
    daemon.creel_ok(&["volume", "rm", "data"]);
    if let Some(path) = std::env::var_os("CREEL_WRITE_JSON") {
        std::fs::write(path, serde_json::to_vec(&printed.values).unwrap()).unwrap();
    }
    compare(&printed.values);
    daemon.finish().await;
}

fn compare(values: &[(&'static str, Value)]) {
    let (mut sections, mut wrong) = (sections(), Vec::new());
    for (name, value) in values {
        match sections.iter_mut().find(|section| section.name == *name) {
            Some(section) => section.object("", value, &mut wrong),
            None => wrong.push(format!("no section {name}")),
        }
    }
    for section in &sections {
        let unmet = section.rows.keys().filter(|path| !section.met.contains(*path));
        wrong.extend(unmet.map(|path| format!("{}: `{path}` is never printed", section.name)));
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "crates/cli/JSON.md and creel differ:\n{}", wrong.join("\n"));
}

fn images(printed: &mut Printed<'_>, registry: &Registry) {
    let copy = format!("127.0.0.1:{}/copy/busybox:1", registry.port);
    printed.lines("creel pull", &["pull", "busybox:1.35"]);
    printed.daemon.creel_ok(&["tag", "busybox:1.35", &copy]);
    printed.lines("creel push", &["push", &copy]);
    printed.document("creel images", &["images"]);
    printed.document("creel history", &["history", "busybox:1.35"]);
    printed.document("creel search", &["search", &format!("127.0.0.1:{}/copy", registry.port)]);
    printed.document("creel image inspect", &["image", "inspect", "busybox:1.35"]);
    printed.document("creel image inspect", &["inspect", "--type", "image", "busybox:1.35"]);
}

fn containers(printed: &mut Printed<'_>) {
    let daemon = printed.daemon;
    daemon.creel_ok(&["volume", "create", "--label", "a=b", "data"]);
    daemon.creel_ok(&["network", "create", "--label", "a=b", "front"]);
    daemon.creel_ok(&["create", "--name", "plain", "busybox:1.35", "true"]);
    let flags = [
        &["--name", "full", "--network", "front", "-p", "127.0.0.1::80", "--expose", "90", "-v", "data:/data", "-l", "a=b"][..],
        &["--tmpfs", "/scratch:size=1m", "-e", "A=b", "--ulimit", "nofile=100:200", "--sysctl", "net.ipv4.ip_forward=1"],
        &[
            "--health-cmd",
            "true",
            "--health-interval",
            "1s",
            "--health-timeout",
            "30s",
            "-m",
            "64m",
            "--restart",
            "on-failure:2",
            "--add-host",
            "h:1.2.3.4",
        ],
        &["--health-start-period", "1s", "--health-start-interval", "1s", "--health-retries", "3"],
        &["--entrypoint", "sleep", "--annotation", "a=b", "--network-alias", "other", "--pids-limit", "50"],
    ]
    .concat();
    daemon.creel_ok(&[&["run", "-d"][..], &flags, &["busybox:1.35", "1000"]].concat());
    for _ in 0..600 {
        let probed = daemon.creel_ok(&["inspect", "-f", "{{json .State.Health.Log}}", "full"]);
        if probed.contains("ExitCode") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    printed.document("creel ps", &["ps", "-as"]);
    printed.document("creel stats", &["stats", "--no-stream"]);
    printed.document("creel inspect", &["inspect", "--size", "full"]);
    printed.document("creel inspect", &["container", "inspect", "plain"]);
    printed.document("creel volume ls", &["volume", "ls"]);
    printed.document("creel volume inspect", &["volume", "inspect", "data"]);
    printed.document("creel volume inspect", &["inspect", "--type", "volume", "data"]);
    printed.document("creel network ls", &["network", "ls"]);
    printed.document("creel network inspect", &["network", "inspect", "front", "bridge"]);
    printed.document("creel network inspect", &["inspect", "--type", "network", "front"]);
    printed.document("creel system df", &["system", "df"]);
    printed.document("creel info", &["info"]);
    printed.document("creel version", &["version"]);
}

/// A kubelet's container.
async fn of_a_pod(printed: &mut Printed<'_>) {
    let mut runtime = printed.daemon.runtime().await;
    let config = pods::host_pod("kube");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut container = pods::container("main", BUSYBOX, "sleep 1000");
    let host_path = printed.daemon.dir.path().display().to_string();
    container.mounts.push(cri::Mount { container_path: "/mnt".into(), host_path, readonly: true, ..Default::default() });
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    printed.document("creel ps", &["ps", "--pods"]);
    printed.document("creel inspect of a pod's container", &["inspect", &id]);
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
}
