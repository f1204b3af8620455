//! CDI devices, and hooks: those of devices and those of the node's administrator.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use api::runtime as cri;
use tonic::Code;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

/// A daemon with directories of specifications and hooks of its own.
async fn ready() -> Daemon {
    let mut daemon = Daemon::prepare(&[], &[]);
    let at = |name: &str| daemon.dir.path().join(name);
    for name in ["cdi-low", "cdi-high", "hooks.d", "config.d"] {
        fs::create_dir(at(name)).unwrap();
    }
    let list = |names: &[&str]| names.iter().map(|name| format!("{:?}", at(name))).collect::<Vec<_>>().join(", ");
    let text = format!("cdi_spec_dirs = [{}]\nhooks_dirs = [{}]\n", list(&["cdi-low", "cdi-high", "absent"]), list(&["hooks.d"]));
    fs::write(at("config.d/it.toml"), text).unwrap();
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    daemon
}

fn put(daemon: &Daemon, name: &str, text: &str) -> PathBuf {
    let path = daemon.dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A program of the host's.
fn script(daemon: &Daemon, name: &str, text: &str) -> PathBuf {
    let path = put(daemon, name, &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn with(name: &str, devices: &[&str]) -> cri::ContainerConfig {
    let cdi_devices = devices.iter().map(|device| cri::CdiDevice { name: (*device).to_owned() }).collect();
    cri::ContainerConfig { cdi_devices, ..pods::container(name, BUSYBOX, "sleep 1000") }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn cr09_a_device_brings_what_its_vendor_says_to_whom_it_is_given() {
    let mut daemon = ready().await;
    let file = put(&daemon, "library.so", "vendor's");
    let spec = |value: &str| {
        format!(
            "cdiVersion: 0.7.0\nkind: vendor.com/gpu\ncontainerEdits:\n  env: [COMMON={value}]\ndevices:\n- name: 0\n  containerEdits:\n    \
             env: [GPU=0]\n    deviceNodes:\n    - {{path: /dev/vendor/zero, hostPath: /dev/zero, permissions: r, fileMode: 0444}}\n    \
             - {{path: /dev/vendor/tun, type: c, major: 10, minor: 200, permissions: r}}\n    \
             mounts:\n    - {{hostPath: {0:?}, containerPath: /usr/lib/library.so, options: [ro, bind, nosuid]}}\n    additionalGids: [4242]\n",
            file.display()
        )
    };
    put(&daemon, "cdi-low/vendor.yaml", &spec("first"));
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("cdi");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let made = pods::run(&mut runtime, &pod, &config, &with("a", &["vendor.com/gpu=0"])).await;
    let look = "echo $COMMON $GPU; ls -l /dev/vendor/zero | cut -c1-10; head -c 3 /dev/vendor/zero | wc -c; cat /usr/lib/library.so; echo; \
                id -G | grep -c 4242; (echo x >/usr/lib/library.so) 2>/dev/null || echo ro; (echo x >/dev/vendor/tun) 2>&1 | grep -o 'Operation not permitted'";
    let (_, output, errors) = pods::exec(&mut runtime, &made, &["sh", "-c", look]).await;
    assert_eq!(output, "first 0\ncr--r--r--\n3\nvendor's\n1\nro\nOperation not permitted", "{errors}");
    let groups = pods::status(&mut runtime, &made).await.user.unwrap().linux.unwrap().supplemental_groups;
    assert!(groups.contains(&4242), "{groups:?}");
    // What annotations say is not read, and what a file says is read anew.
    let mut annotated = pods::container("b", BUSYBOX, "sleep 1000");
    annotated.annotations = [("cdi.k8s.io/vendor".to_owned(), "vendor.com/gpu=0".to_owned())].into();
    let plain = pods::run(&mut runtime, &pod, &config, &annotated).await;
    let (code, output, _) = pods::exec(&mut runtime, &plain, &["sh", "-c", "echo $COMMON; ls /dev/vendor"]).await;
    assert_eq!((code, output.as_str()), (1, ""));
    put(&daemon, "cdi-high/vendor.yaml", &spec("second"));
    let newer = pods::run(&mut runtime, &pod, &config, &with("c", &["vendor.com/gpu=0"])).await;
    assert_eq!(pods::exec(&mut runtime, &newer, &["sh", "-c", "echo $COMMON"]).await.1, "second");
    daemon.kill();
    daemon.run().await;
    let mut runtime = daemon.runtime().await;
    assert_eq!(pods::exec(&mut runtime, &made, &["sh", "-c", "echo $COMMON"]).await.1, "first");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_is_named() {
    let daemon = ready().await;
    let json = |device: &str, edits: &str| {
        format!(r#"{{"cdiVersion":"1.1.0","kind":"v.com/x","devices":[{{"name":"{device}","containerEdits":{edits}}}]}}"#)
    };
    put(&daemon, "cdi-low/bad.json", "{");
    put(&daemon, "cdi-low/one.json", &json("both", r#"{"env":["A=b"]}"#));
    put(&daemon, "cdi-low/two.json", &json("both", r#"{"env":["A=c"]}"#));
    put(&daemon, "cdi-low/net.json", &json("net", r#"{"netDevices":[{"hostInterfaceName":"eth9","name":"n"}]}"#));
    put(&daemon, "cdi-low/lost.json", &json("lost", r#"{"deviceNodes":[{"path":"/dev/no-such-device"}]}"#));
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("wrong");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    for (device, why, code) in [
        ("v.com/x=missing", "v.com/x=missing is in no specification in ", Code::FailedPrecondition),
        ("v.com/x=missing", "cdi-low/bad.json: EOF", Code::FailedPrecondition),
        ("v.com/x=both", "two specifications of the same priority: ", Code::FailedPrecondition),
        ("v.com/x=net", "CDI netDevices: interface \"eth9\"", Code::Unimplemented),
        ("v.com/x=lost", "find CDI device /dev/no-such-device", Code::FailedPrecondition),
        ("gpu0", "\"gpu0\": not VENDOR/CLASS=DEVICE", Code::InvalidArgument),
        ("", "config.CDI_devices: ", Code::InvalidArgument),
    ] {
        let error = pods::create(&mut runtime, &pod, &config, &with("c", &[device])).await.expect_err(device);
        assert!(error.message().contains(why) && error.code() == code, "{device}: {error}");
    }
    daemon.finish().await;
}

/// A hook for all stages that writes down where it is and what it is told.
fn recorder(daemon: &Daemon) -> (PathBuf, PathBuf) {
    let log = daemon.dir.path().join("hooks.log");
    let text = format!(
        "state=$(cat); bundle=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\n\
         [ -e $bundle/rootfs/bin/busybox ] && inside=yes || inside=no\n\
         grep -q '\"root\"' $bundle/config.json && config=yes || config=no\n\
         echo \"$1 inside=$inside config=$config pwd=$PWD env=$(env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | tr '\\n' ',') $state\" >>{}",
        log.display()
    );
    (script(daemon, "recorder", &text), log)
}

fn hook_file(path: &Path, stages: &[&str], when: &str) -> String {
    let hook = serde_json::json!({"path": path, "args": ["recorder", stages[0]], "env": ["ONLY=this"], "timeout": 20});
    format!(r#"{{"version":"1.0.0","hook":{hook},"when":{when},"stages":{}}}"#, serde_json::json!(stages))
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_at_their_points() {
    let daemon = ready().await;
    let (program, log) = recorder(&daemon);
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let when = r#"{"annotations":{"^it/hooks$":"^wanted$"}}"#;
        put(&daemon, &format!("hooks.d/{stage}.json"), &hook_file(&program, &[stage], when));
    }
    let inside = r#"{"version":"1.0.0","hook":{"path":"/bin/sh","args":["sh","-c","cat >/started"]},"when":{"commands":["^sh$"]},"stages":["startContainer"]}"#;
    put(&daemon, "hooks.d/inside.json", inside);
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("hooks");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let plain = pods::run(&mut runtime, &pod, &config, &pods::container("plain", BUSYBOX, "sleep 1000")).await;
    assert_eq!(read(&log), "", "not for this one");
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    container.annotations = [("it/hooks".to_owned(), "wanted".to_owned())].into();
    let made = pods::create(&mut runtime, &pod, &config, &container).await.unwrap();
    let stages = || read(&log).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(), ["prestart", "createRuntime", "createContainer"]);
    pods::start(&mut runtime, &made).await.unwrap();
    let (_, state, _) = pods::exec(&mut runtime, &made, &["cat", "/started"]).await;
    assert!(state.contains(r#""status":"created""#) && state.contains(&made), "{state}");
    assert_eq!(pods::exec(&mut runtime, &plain, &["cat", "/started"]).await.0, 0, "by its command");
    runtime.stop_container(cri::StopContainerRequest { container_id: made.clone(), timeout: 1 }).await.unwrap();
    runtime.remove_container(cri::RemoveContainerRequest { container_id: made.clone() }).await.unwrap();
    assert_eq!(stages(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    let told = read(&log);
    for (line, status) in told.lines().zip(["creating", "creating", "creating", "running", "stopped"]) {
        assert!(line.contains(&format!(r#""status":"{status}""#)) && line.contains(&format!(r#""id":"{made}""#)), "{line}");
        assert!(line.contains(" pwd=/ env=ONLY=this, "), "nothing of ours (R15): {line}");
        assert!(line.contains(r#""annotations":{"it/hooks":"wanted"}"#) && line.contains(" config=yes "), "{line}");
        assert_eq!(line.contains(" inside=yes "), line.starts_with("createContainer"), "{line}");
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_fails_the_container_and_leaves_nothing() {
    let daemon = ready().await;
    let (program, log) = recorder(&daemon);
    put(&daemon, "hooks.d/stop.json", &hook_file(&program, &["poststop"], r#"{"always":true}"#));
    let failing = script(&daemon, "failing", "echo for a reason >&2; exit 3");
    let slow = script(&daemon, "slow", "sleep 1000");
    let device = |name: &str, stage: &str, path: &Path, timeout: u32| {
        let hook = serde_json::json!({"hookName": stage, "path": path, "timeout": timeout});
        format!(r#"{{"name":"{name}","containerEdits":{{"hooks":[{hook}]}}}}"#)
    };
    let devices = [
        device("prestart", "prestart", &failing, 20),
        device("runtime", "createRuntime", &failing, 20),
        device("container", "createContainer", &failing, 20),
        device("slow", "createContainer", &slow, 1),
        device("missing", "createRuntime", Path::new("/no/such/hook"), 20),
        device("start", "startContainer", Path::new("/bin/false"), 20),
        device("late", "poststart", &failing, 20),
    ];
    put(&daemon, "cdi-low/v.json", &format!(r#"{{"cdiVersion":"1.0.0","kind":"v.com/h","devices":[{}]}}"#, devices.join(",")));
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("failing");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    for (device, why) in [
        ("prestart", "prestart hook"),
        ("runtime", "exit status 3: for a reason"),
        ("container", "createContainer hook"),
        ("slow", "took longer than it may"),
        ("missing", "/no/such/hook"),
    ] {
        let before = read(&log).lines().count();
        let name = format!("v.com/h={device}");
        let error = pods::create(&mut runtime, &pod, &config, &with("c", &[&name])).await.expect_err(device);
        assert!(error.message().contains(why), "{device}: {error}");
        assert_eq!(read(&log).lines().count(), before + 1, "{device}: its end is told");
    }
    let made = pods::create(&mut runtime, &pod, &config, &with("s", &["v.com/h=start"])).await.unwrap();
    let error = pods::start(&mut runtime, &made).await.unwrap_err();
    assert!(error.message().contains("startContainer hook \"/bin/false\": exit status 1"), "{error}");
    let late = pods::run(&mut runtime, &pod, &config, &with("l", &["v.com/h=late"])).await;
    assert_eq!(pods::status(&mut runtime, &late).await.state(), cri::ContainerState::ContainerRunning, "only said");
    daemon.finish().await;
}
