//! The CNI client with plugins that misbehave in every way, and with the field's real ones where they are installed.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::{
    ErrorKind,
    pod::{PortMapping, Protocol},
};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::testnet::{Namespace, key, pod_id};

/// A directory of configurations and one of plugins.
struct Lab {
    dir: TempDir,
    cni: Cni,
}

/// A plugin that writes down how it was called, then does what the file `behave-COMMAND` says.
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")/..
input=$(cat)
echo "$CNI_COMMAND $(basename "$0") $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >> "$dir/calls"
echo "$input" >> "$dir/inputs"
env | cut -d= -f1 | sort | tr '\n' ' ' > "$dir/env"
if [ -f "$dir/behave-$CNI_COMMAND-$(basename "$0")" ]; then . "$dir/behave-$CNI_COMMAND-$(basename "$0")"; fi
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.7.7.7/24"},{"address":"fd00::7/64"}],"by":"'$(basename "$0")'"}'
exit 0
"#;

const CHAIN: &str = r#"{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"first","mtu":9},
    {"type":"second","capabilities":{"portMappings":true,"dns":false}}]}"#;

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["conf", "bin"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = CniConfig {
            conf_dir: dir.path().join("conf"),
            bin_dirs: vec![dir.path().join("absent"), dir.path().join("bin")],
            timeout: Duration::from_secs(20),
        };
        let lab = Self { cni: Cni::new(config), dir };
        lab.plugin("first", PLUGIN);
        lab.plugin("second", PLUGIN);
        lab
    }

    fn with_chain() -> Self {
        let lab = Self::new();
        lab.conf("10-lab.conflist", CHAIN);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plugin(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn conf(&self, name: &str, text: &str) {
        fs::write(self.path("conf").join(name), text).unwrap();
    }

    fn behave(&self, command: &str, plugin: &str, how: &str) {
        fs::write(self.path(&format!("behave-{command}-{plugin}")), how).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn inputs(&self) -> Vec<Value> {
        fs::read_to_string(self.path("inputs")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn attach(&self) -> Result<Attached, Error> {
        let ports = [PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];
        self.cni.attach(&AttachRequest {
            pod: pod_id(1),
            key: &key("p"),
            netns: Path::new("/proc/self/ns/net"),
            ports: &ports,
            dns: None,
        })
    }

    fn detach(&self, record: Option<&[u8]>) -> Result<(), Error> {
        self.cni.detach(pod_id(1), &key("p"), Some(Path::new("/proc/self/ns/net")), record)
    }
}

fn chain_of(error: &Error) -> String {
    error::chain(error)
}

#[test]
fn a_chain_is_run_forwards_and_backwards() {
    let lab = Lab::with_chain();
    assert_eq!(lab.cni.status(), Status::Ready);
    let attached = lab.attach().unwrap();
    assert_eq!(
        (attached.ip, attached.additional.clone()),
        ("10.7.7.7".parse::<IpAddr>().unwrap(), vec!["fd00::7".parse().unwrap()])
    );
    lab.detach(Some(&attached.record)).unwrap();
    assert_eq!(lab.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
    let inputs = lab.inputs();
    assert_eq!((&inputs[0]["name"], &inputs[0]["cniVersion"], &inputs[0]["mtu"]), (&"lab".into(), &"1.0.0".into(), &9.into()));
    assert!(inputs[0].get("prevResult").is_none() && inputs[0].get("runtimeConfig").is_none());
    assert_eq!(inputs[1]["prevResult"]["by"], "first");
    assert_eq!(
        inputs[1]["runtimeConfig"],
        serde_json::json!({"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]})
    );
    assert!(inputs[1].get("capabilities").is_none());
    assert_eq!(inputs[3]["prevResult"]["by"], "second", "DEL gets the final result");
    let line = fs::read_to_string(lab.path("calls")).unwrap();
    let expected = format!(
        "ADD first {id} /proc/self/ns/net eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=uid\n",
        id = pod_id(1)
    );
    assert!(line.starts_with(&expected), "{line}");
    // R15: nothing of the daemon's own environment.
    let env = fs::read_to_string(lab.path("env")).unwrap();
    assert_eq!(env.trim(), "CNI_ARGS CNI_COMMAND CNI_CONTAINERID CNI_IFNAME CNI_NETNS CNI_PATH PATH PWD", "{env}");
}

#[test]
fn f_30_a_failed_add_is_taken_back_and_can_be_tried_again() {
    for (how, word, kind) in [
        (r#"echo '{"code":11,"msg":"try later"}'; exit 1"#, "try later (code 11)", ErrorKind::Unavailable),
        ("echo oops >&2; exit 3", "exit status: 3: oops", ErrorKind::Unavailable),
        ("kill -9 $$", "signal: 9", ErrorKind::Unavailable),
        ("echo nonsense; exit 0", "result", ErrorKind::Unavailable),
        ("exit 0", "result", ErrorKind::Unavailable),
        (r#"echo '{"cniVersion":"1.0.0","ips":[]}'; exit 0"#, "no address", ErrorKind::Unavailable),
        ("head -c 100000000 /dev/zero; exit 0", "1048576 bytes", ErrorKind::Unavailable),
    ] {
        let lab = Lab::with_chain();
        lab.behave("ADD", "second", how);
        let error = lab.attach().unwrap_err();
        let text = chain_of(&error);
        assert!(text.contains(word) && text.contains("second") && text.contains("lab"), "{how}: {text}");
        assert_eq!(error.kind(), kind, "{how}");
        assert_eq!(lab.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"], "{how}");
        // DEL once: the caller's own way back finds nothing to do.
        lab.detach(None).unwrap();
        assert_eq!(lab.calls().len(), 4);
        fs::remove_file(lab.path("behave-ADD-second")).unwrap();
        lab.attach().unwrap();
    }
}

#[test]
fn f_30_only_what_was_begun_is_taken_back() {
    let lab = Lab::with_chain();
    lab.behave("ADD", "first", "exit 1");
    lab.attach().unwrap_err();
    assert_eq!(lab.calls(), ["ADD first", "DEL first"]);
}

#[test]
fn f_30_a_hanging_plugin_is_killed_with_its_children() {
    let mut lab = Lab::with_chain();
    lab.cni.config.timeout = Duration::from_millis(700);
    // A grandchild holds the pipes open and would outlive its parent.
    lab.behave("ADD", "second", "sleep 300 & echo $! > \"$dir/child\"; wait");
    let error = lab.attach().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{}", chain_of(&error));
    let child = fs::read_to_string(lab.path("child")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    // Gone, or a zombie that its new parent has not looked at yet.
    let alive = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        assert!(Instant::now() < deadline, "child {child} survived");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_that_a_plugin_leaves_behind_is_not_waited_for() {
    let lab = Lab::with_chain();
    lab.behave("ADD", "first", "sleep 3 &");
    let begin = Instant::now();
    lab.attach().unwrap();
    assert!(begin.elapsed() < lab.cni.config.timeout);
}

#[test]
fn f_31_a_failed_del_is_owed_until_it_succeeds() {
    let lab = Lab::with_chain();
    let attached = lab.attach().unwrap();
    lab.behave("DEL", "second", "exit 7");
    for _ in 0..3 {
        assert!(chain_of(&lab.detach(Some(&attached.record)).unwrap_err()).contains("exit status: 7"));
    }
    // All plugins were tried all the same.
    assert_eq!(lab.calls()[2..], ["DEL second", "DEL first"].repeat(3));
    fs::remove_file(lab.path("behave-DEL-second")).unwrap();
    lab.detach(Some(&attached.record)).unwrap();
    lab.detach(Some(&attached.record)).unwrap();
    // The namespace is gone: plugins hear an empty CNI_NETNS.
    lab.cni.detach(pod_id(1), &key("p"), None, Some(&attached.record)).unwrap();
    lab.cni.detach(pod_id(1), &key("p"), Some(Path::new("/proc/0/ns/net")), Some(&attached.record)).unwrap();
    let calls = fs::read_to_string(lab.path("calls")).unwrap();
    assert!(calls.lines().rev().take(4).all(|line| line.contains("5a  eth0")), "{calls}");
    fs::remove_file(lab.path("bin/second")).unwrap();
    let gone = lab.detach(Some(&attached.record)).unwrap_err();
    assert!(chain_of(&gone).contains("not found in"), "{}", chain_of(&gone));
}

#[test]
fn f_31_what_a_failed_add_could_not_take_back_is_still_owed() {
    let lab = Lab::with_chain();
    lab.behave("ADD", "second", "exit 1");
    lab.behave("DEL", "first", "exit 1");
    lab.attach().unwrap_err();
    assert!(lab.detach(None).is_err());
    fs::remove_file(lab.path("behave-DEL-first")).unwrap();
    fs::remove_file(lab.path("conf/10-lab.conflist")).unwrap();
    lab.detach(None).unwrap();
    assert_eq!(lab.calls().iter().filter(|call| *call == "DEL first").count(), 3);
    // Nothing is owed any more, and there is no configuration.
    lab.detach(None).unwrap();
    assert_eq!(lab.calls().iter().filter(|call| *call == "DEL first").count(), 3);
}

#[test]
fn a_caller_that_lost_the_record_can_still_detach() {
    let lab = Lab::with_chain();
    lab.attach().unwrap();
    fs::remove_file(lab.path("conf/10-lab.conflist")).unwrap();
    lab.detach(None).unwrap();
    assert_eq!(lab.calls()[2..], ["DEL second", "DEL first"]);
    assert_eq!(lab.inputs()[2]["prevResult"]["by"], "second");
}

#[test]
fn f_32_pods_leave_by_the_configuration_they_came_with() {
    let lab = Lab::new();
    let Status::NotReady { message, .. } = lab.cni.status() else { panic!("ready without configuration") };
    assert!(message.contains("conf"), "{message}");
    assert_eq!(lab.attach().unwrap_err().kind(), ErrorKind::Unavailable);
    lab.conf("10-lab.conflist", CHAIN);
    assert_eq!(lab.cni.status(), Status::Ready);
    let attached = lab.attach().unwrap();
    let intent = lab.cni.intent(&AttachRequest {
        pod: pod_id(1),
        key: &key("p"),
        netns: Path::new("/proc/self/ns/net"),
        ports: &[],
        dns: None,
    });
    lab.conf("10-lab.conflist", &CHAIN.replace("first", "third"));
    assert!(matches!(lab.attach(), Err(Error::Cni { plugin, .. }) if plugin == "third"));
    fs::remove_dir_all(lab.path("conf")).unwrap();
    assert!(matches!(lab.cni.status(), Status::NotReady { .. }));
    // A new daemon that knows only the record.
    let other = Cni::new(lab.cni.config.clone());
    for record in [attached.record, intent.unwrap()] {
        let before = lab.calls().len();
        other.detach(pod_id(1), &key("p"), None, Some(&record)).unwrap();
        assert_eq!(lab.calls()[before..], ["DEL second", "DEL first"]);
    }
    fs::create_dir(lab.path("conf")).unwrap();
    lab.conf("10-lab.conflist", CHAIN);
    assert_eq!(lab.cni.status(), Status::Ready, "a directory made anew is seen");
}

#[test]
fn nw_01_files_that_cannot_be_trusted_or_understood_are_passed_over() {
    let lab = Lab::new();
    lab.conf("00-empty.conf", "");
    lab.conf("01-type.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"../../../bin/sh"}"#);
    lab.conf("02-version.conf", r#"{"cniVersion":"9.9","name":"n","type":"first"}"#);
    lab.conf("03-long.conf", &" ".repeat(10 << 20));
    lab.conf("04-writable.conf", CHAIN);
    lab.conf("05-foreign.conf", CHAIN);
    lab.conf("06-ignored.txt", CHAIN);
    let conf = lab.path("conf");
    fs::set_permissions(conf.join("04-writable.conf"), fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(conf.join("05-foreign.conf"), Some(1234), None).unwrap();
    symlink("/nowhere", conf.join("07-dangling.conf")).unwrap();
    nix::unistd::mkfifo(&conf.join("08-fifo.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let Status::NotReady { message, .. } = lab.cni.status() else { panic!("ready") };
    for word in
        ["00-empty.conf", "bin/sh", "9.9", "1048576", "written by others", "belong to root", "07-dangling.conf", "not a regular"]
    {
        assert!(message.contains(word), "{word} in {message}");
    }
    lab.conf("09-good.json", CHAIN);
    lab.attach().unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(lab.cni.status(), Status::NotReady { message, .. } if message.contains("written by others")));
}

#[test]
fn nw_01_programs_that_cannot_be_trusted_are_not_run() {
    let lab = Lab::with_chain();
    let first = lab.path("bin/first");
    let refused = |word: &str| {
        let error = lab.attach().unwrap_err();
        assert!(chain_of(&error).contains(word), "{word}: {}", chain_of(&error));
        assert_eq!(lab.calls(), [""; 0], "{word}");
    };
    fs::set_permissions(&first, fs::Permissions::from_mode(0o777)).unwrap();
    refused("written by others");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o644)).unwrap();
    refused("not a program");
    std::os::unix::fs::chown(&first, Some(1234), None).unwrap();
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).unwrap();
    refused("belong to root");
    fs::remove_file(&first).unwrap();
    symlink("/bin/true", &first).unwrap();
    refused("leads out");
    fs::remove_file(&first).unwrap();
    refused("not found");
    assert!(matches!(lab.cni.status(), Status::NotReady { message, .. } if message.contains("not found")));
    fs::create_dir(&first).unwrap();
    refused("not a program");
    fs::remove_dir(&first).unwrap();
    // One program with several names is common.
    symlink("second", &first).unwrap();
    lab.attach().unwrap();
    fs::set_permissions(lab.path("bin"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(chain_of(&lab.attach().unwrap_err()).contains("written by others"));
}

#[test]
fn names_cannot_smuggle_arguments() {
    let lab = Lab::with_chain();
    let evil = key("p;K8S_POD_UID=other");
    let request = AttachRequest { pod: pod_id(1), key: &evil, netns: Path::new("/proc/self/ns/net"), ports: &[], dns: None };
    assert_eq!(lab.cni.attach(&request).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(lab.calls(), [""; 0]);
}

#[test]
fn plugins_of_version_1_1_are_asked_for_their_status() {
    let lab = Lab::new();
    lab.conf("10-lab.conflist", &CHAIN.replace("1.0.0", "1.1.0"));
    lab.behave("STATUS", "second", r#"echo '{"code":50,"msg":"agent is down"}'; exit 1"#);
    for _ in 0..5 {
        let Status::NotReady { message, .. } = lab.cni.status() else { panic!("ready") };
        assert!(message.contains("agent is down (code 50)") && message.contains("STATUS"), "{message}");
    }
    assert_eq!(lab.calls(), ["STATUS first", "STATUS second"], "asked once, remembered");
    // A new configuration is asked at once.
    fs::remove_file(lab.path("behave-STATUS-second")).unwrap();
    lab.conf("10-lab.conflist", &CHAIN.replace("1.0.0", "1.1.0").replace('9', "8"));
    assert_eq!(lab.cni.status(), Status::Ready);
}

#[test]
fn the_real_plugins_work() {
    let cached = std::env::var("CREEL_CACHE").map(|cache| format!("{cache}/cni")).unwrap_or_default();
    let dirs = [cached.as_str(), "/opt/cni/bin", "/usr/lib/cni"];
    let Some(bin) = dirs.iter().map(PathBuf::from).find(|dir| dir.join("bridge").exists() && dir.join("host-local").exists())
    else {
        eprintln!("skipped: no CNI plugins in {dirs:?}");
        return;
    };
    if !Namespace::possible() {
        return;
    }
    let lab = Lab::new();
    let leases = lab.path("leases");
    let conf = format!(
        r#"{{"cniVersion":"1.0.0","name":"real","plugins":[{{"type":"bridge","bridge":"cnireal0","isGateway":true,
            "ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.209.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
            {{"type":"tuning","sysctl":{{"net.core.somaxconn":"500"}}}}]}}"#,
        leases.display()
    );
    lab.conf("10-real.conflist", &conf);
    let (host, pod) = (Namespace::new(), Namespace::new());
    let cni = Cni::new(CniConfig { bin_dirs: vec![bin], ..lab.cni.config.clone() });
    let netns = pod.path().to_owned();
    let leased = move || {
        fs::read_dir(leases.join("real")).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with("10.")).count()
    };
    host.run(move || {
        let request = AttachRequest { pod: pod_id(1), key: &key("p"), netns: &netns, ports: &[], dns: None };
        for _ in 0..2 {
            let begin = Instant::now();
            let attached = cni.attach(&request).unwrap_or_else(|e| panic!("{}", chain_of(&e)));
            let took = begin.elapsed();
            assert_eq!(leased(), 1);
            assert!(attached.ip.to_string().starts_with("10.209.0."), "{attached:?}");
            let begin = Instant::now();
            cni.detach(pod_id(1), &key("p"), Some(&netns), Some(&attached.record)).unwrap();
            eprintln!("bridge, host-local and tuning: ADD {took:?}, DEL {:?}", begin.elapsed());
            assert_eq!(leased(), 0);
            cni.detach(pod_id(1), &key("p"), None, Some(&attached.record)).unwrap();
        }
        let attached = cni.attach(&request).unwrap();
        cni.detach(pod_id(1), &key("p"), None, Some(&attached.record)).unwrap();
        assert_eq!(leased(), 0, "addresses come back without the namespace");
        // A second interface of that name is the plugin's to refuse; its address comes back.
        let error = cni.attach(&request).unwrap_err();
        assert!(chain_of(&error).contains("eth0"), "{}", chain_of(&error));
        assert_eq!(leased(), 0);
    });
}
