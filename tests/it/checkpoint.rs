//! Checkpoint and restore with the real criu: containers go on, and go on again where they were.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use api::runtime as cri;
use tonic::Code;

use crate::{
    check,
    daemon::{self, Daemon},
    pods::{self, BUSYBOX, Runtime},
};

/// Counts into its log, a file of its own and memory.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.05; done";

/// criu, and the configuration that names it.
fn criu() -> PathBuf {
    daemon::cache("bin/criu")
}

fn with_criu(daemon: &Daemon, criu: &str) {
    let file = daemon.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, format!("{text}\n[checkpoint]\ncriu = \"{criu}\"\n")).unwrap();
}

/// A daemon with criu, or a reason why this cannot be tested here.
async fn start(env: &[(&str, &str)]) -> Option<Daemon> {
    let checked = std::process::Command::new(criu()).arg("check").output();
    match checked {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!("SKIPPED: criu check: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            eprintln!("SKIPPED: {}: {error} (hack/deps criu)", criu().display());
            return None;
        }
    }
    let mut daemon = Daemon::prepare(&[], env);
    with_criu(&daemon, criu().to_str().unwrap());
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    Some(daemon)
}

fn pod_config(daemon: &Daemon, name: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig { log_directory: daemon.dir.path().join("logs").join(name).display().to_string(), ..pods::pod(name) }
}

fn log(daemon: &Daemon, pod: &str, container: &str) -> Vec<u64> {
    let text = pods::log_text(&daemon.dir.path().join("logs").join(pod).join(format!("{container}.log")));
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Waits until a container has written more than that.
async fn wait_past(daemon: &Daemon, pod: &str, container: &str, count: u64) -> u64 {
    for _ in 0..3000 {
        if let Some(last) = log(daemon, pod, container).last().copied().filter(|last| *last > count) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{pod}/{container} does not count past {count}: {:?}\n{}", log(daemon, pod, container).last(), daemon.log());
}

fn directory(daemon: &Daemon, name: &str) -> PathBuf {
    let path = daemon.dir.path().join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

async fn checkpoint_pod(runtime: &mut Runtime, pod: &str, output: &Path, containers: &[&str]) -> Result<(), tonic::Status> {
    let request = cri::CheckpointPodRequest {
        pod_sandbox_id: pod.into(),
        output_path: output.display().to_string(),
        container_ids: containers.iter().map(ToString::to_string).collect(),
        options: BTreeMap::new(),
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(60));
    runtime.checkpoint_pod(request).await.map(drop)
}

fn restore_request(
    from: &Path,
    config: &cri::PodSandboxConfig,
    containers: &[cri::ContainerConfig],
) -> tonic::Request<cri::RestorePodRequest> {
    let mut request = tonic::Request::new(cri::RestorePodRequest {
        checkpoint_path: from.display().to_string(),
        config: Some(config.clone()),
        container_configs: containers.to_vec(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(60));
    request
}

async fn restore(
    runtime: &mut Runtime,
    from: &Path,
    config: &cri::PodSandboxConfig,
    containers: &[cri::ContainerConfig],
) -> Result<cri::RestorePodResponse, tonic::Status> {
    runtime.restore_pod(restore_request(from, config, containers)).await.map(tonic::Response::into_inner)
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// With the filter that Kubernetes calls RuntimeDefault.
fn counting(name: &str) -> cri::ContainerConfig {
    let mut config = pods::container(name, BUSYBOX, COUNT);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.seccomp = Some(cri::SecurityProfile::default());
    config
}

/// Two containers that count: pod, containers and what was asked for.
async fn counters(daemon: &Daemon, runtime: &mut Runtime, name: &str) -> (String, Vec<String>, Vec<cri::ContainerConfig>) {
    let config = pod_config(daemon, name);
    let pod = pods::run_pod(runtime, &config).await.unwrap();
    let configs = vec![counting("one"), counting("two")];
    let mut ids = Vec::new();
    for container in &configs {
        ids.push(pods::run(runtime, &pod, &config, container).await);
    }
    (pod, ids, configs)
}

/// The counters go on counting after the checkpoint, and in another pod from where they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_captured_and_restored() {
    let Some(daemon) = start(&[]).await else { return };
    let mut runtime = daemon.runtime().await;
    let (pod, ids, configs) = counters(&daemon, &mut runtime, "origin").await;
    for name in ["one", "two"] {
        wait_past(&daemon, "origin", name, 3).await;
    }
    pods::exec(&mut runtime, &ids[0], &["sh", "-c", "rm /etc/passwd; echo kept >/root/file; echo shared >/dev/shm/s"]).await;
    let output = directory(&daemon, "checkpoint");
    let before = std::fs::metadata(&output).unwrap().permissions().mode();
    checkpoint_pod(&mut runtime, &pod, &output, &[&ids[0], &ids[1]]).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode(), before);
    let captured: BTreeMap<&str, u64> =
        [("one", 0), ("two", 1)].map(|(name, _)| (name, *log(&daemon, "origin", name).last().unwrap())).into();
    for name in ["one", "two"] {
        // It goes on, and no line is lost.
        wait_past(&daemon, "origin", name, captured[name] + 3).await;
        let counted = log(&daemon, "origin", name);
        assert!(counted.iter().zip(1..).all(|(line, number)| *line == number), "{counted:?}");
    }

    let config = pod_config(&daemon, "copy");
    let restored = restore(&mut runtime, &output, &config, &configs).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    let names: Vec<&str> = restored.restored_containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_ne!(restored.pod_sandbox_id, pod);
    for container in &restored.restored_containers {
        let status = pods::status(&mut runtime, &container.container_id).await;
        assert_eq!(status.state(), cri::ContainerState::ContainerCreated);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log(&daemon, "copy", "one"), Vec::<u64>::new(), "it has run before it was started");
    for container in &restored.restored_containers {
        pods::start(&mut runtime, &container.container_id).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    }
    for container in &restored.restored_containers {
        let name = container.name.as_str();
        wait_past(&daemon, "copy", name, captured[name] + 3).await;
        let counted = log(&daemon, "copy", name);
        assert!(counted[0] > 3 && counted[0] <= captured[name] + 1, "{name} begins at {} of {}", counted[0], captured[name]);
        assert!(counted.windows(2).all(|pair| pair[1] == pair[0] + 1), "{counted:?}");
    }
    let one = &restored.restored_containers[0].container_id;
    let look = "cat /root/file /dev/shm/s; test -e /etc/passwd || echo gone; hostname; cat /proc/1/comm";
    assert_eq!(pods::exec(&mut runtime, one, &["sh", "-c", look]).await.1, "kept\nshared\ngone\ncopy\nsh");
    runtime.stop_container(cri::StopContainerRequest { container_id: one.clone(), timeout: 0 }).await.unwrap();
    assert_eq!(pods::status(&mut runtime, one).await.exit_code, 137);
    // The same checkpoint again: it was only read.
    let again = pod_config(&daemon, "again");
    restore(&mut runtime, &output, &again, &configs).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    daemon.finish().await;
}

/// What kubelet does for ContainerCheckpoint: one file that was not there, for root alone, as podman's tools read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_captured_into_an_archive() {
    let Some(daemon) = start(&[]).await else { return };
    let mut runtime = daemon.runtime().await;
    let (_, ids, _) = counters(&daemon, &mut runtime, "origin").await;
    let count = wait_past(&daemon, "origin", "one", 3).await;
    let archive = directory(&daemon, "out").join("checkpoint-x.tar");
    let request = |location: &Path, timeout| cri::CheckpointContainerRequest {
        container_id: ids[0].clone(),
        location: location.display().to_string(),
        timeout,
    };
    runtime.checkpoint_container(request(&archive, 60)).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    assert_eq!(std::fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in
        ["config.dump", "spec.dump", "checkpoint/inventory.img", "checkpoint/pages-1.img", "rootfs-diff.tar", "container.log"]
    {
        assert!(listed.lines().any(|line| line.trim_start_matches("./") == name), "{name} is not in\n{listed}");
    }
    wait_past(&daemon, "origin", "one", count + 3).await;
    let error = runtime.checkpoint_container(request(&archive, 0)).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    for (location, timeout, code) in
        [("relative.tar", 0, Code::InvalidArgument), ("", 0, Code::InvalidArgument), ("/x.tar", -1, Code::InvalidArgument)]
    {
        let error = runtime.checkpoint_container(request(Path::new(location), timeout)).await.unwrap_err();
        assert_eq!(error.code(), code, "{location}: {error}");
    }
    assert_eq!(std::fs::read_dir(archive.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_criu_it_is_refused_with_the_reason() {
    let mut daemon = Daemon::prepare(&[], &[]);
    with_criu(&daemon, "/nonexistent/criu");
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let (pod, ids, configs) = counters(&daemon, &mut runtime, "origin").await;
    let location = daemon.dir.path().join("c.tar").display().to_string();
    let request = cri::CheckpointContainerRequest { container_id: ids[0].clone(), location, timeout: 0 };
    let output = directory(&daemon, "checkpoint");
    let errors = [
        runtime.checkpoint_container(request).await.unwrap_err(),
        checkpoint_pod(&mut runtime, &pod, &output, &[&ids[0], &ids[1]]).await.unwrap_err(),
        restore(&mut runtime, &output, &pod_config(&daemon, "copy"), &configs).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
        assert!(error.message().contains("there is no program /nonexistent/criu"), "{error}");
    }
    assert!(is_empty(&output));
    let status = runtime.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner();
    assert!(status.info["checkpoint"].contains("\"available\":false"), "{:?}", status.info);
    assert!(status.info["checkpoint"].contains("/nonexistent/criu"), "{:?}", status.info);
    daemon.finish().await;
}

/// A request that asks for something else than it says is refused, and nothing stands still for it.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_cannot_be_are_refused() {
    let Some(daemon) = start(&[]).await else { return };
    let mut runtime = daemon.runtime().await;
    let (pod, ids, _) = counters(&daemon, &mut runtime, "origin").await;
    let output = directory(&daemon, "checkpoint");
    let full = directory(&daemon, "full");
    std::fs::write(full.join("theirs"), "").unwrap();
    let created =
        pods::create(&mut runtime, &pod, &pod_config(&daemon, "origin"), &pods::container("new", BUSYBOX, "true")).await.unwrap();
    let missing = daemon.dir.path().join("missing");
    for (output, containers, words) in [
        (&output, vec![], "container_ids"),
        (&output, vec![ids[0].as_str(), ids[0].as_str()], "named twice"),
        (&output, vec![created.as_str()], "not running"),
        (&full, vec![ids[0].as_str()], "is not empty"),
        (&missing, vec![ids[0].as_str()], "No such file"),
        (&PathBuf::from("relative"), vec![ids[0].as_str()], "absolute path"),
    ] {
        let error = checkpoint_pod(&mut runtime, &pod, output, &containers).await.unwrap_err();
        assert!(error.message().contains(words), "{words}: {error}");
    }
    let request = cri::CheckpointPodRequest {
        pod_sandbox_id: pod.clone(),
        output_path: output.display().to_string(),
        container_ids: vec![ids[0].clone()],
        options: [("leave-stopped".to_owned(), "true".to_owned())].into(),
    };
    let error = runtime.checkpoint_pod(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("leave-stopped"), "{error}");
    // What runs besides the container's own processes belongs to somebody who waits for it.
    let config = cri::ContainerConfig { tty: true, ..pods::container("terminal", BUSYBOX, "sleep 1000") };
    let terminal = pods::run(&mut runtime, &pod, &pod_config(&daemon, "origin"), &config).await;
    let error = checkpoint_pod(&mut runtime, &pod, &output, &[&terminal]).await.unwrap_err();
    assert!(error.message().contains("terminal"), "{error}");
    assert!(is_empty(&output) && full.join("theirs").exists());
    let count = *log(&daemon, "origin", "one").last().unwrap();
    wait_past(&daemon, "origin", "one", count + 3).await;
    daemon.finish().await;
}

/// At every step: the step fails, everything runs again and the directory is empty; the daemon dies there, likewise.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_everything_runs_again() {
    const STEPS: [&str; 4] = ["ckpt.freeze", "ckpt.frozen", "ckpt.one", "ckpt.captured"];
    let points = STEPS.map(|step| format!("{step}=error:1")).join(",");
    let Some(mut daemon) = start(&[("CREEL_FAILPOINTS", &points)]).await else { return };
    let mut runtime = daemon.runtime().await;
    let (pod, ids, _) = counters(&daemon, &mut runtime, "origin").await;
    let output = directory(&daemon, "checkpoint");
    for step in STEPS {
        let error = checkpoint_pod(&mut runtime, &pod, &output, &[&ids[0], &ids[1]]).await.expect_err(step);
        assert!(error.message().contains(step), "{step}: {error}");
        assert!(is_empty(&output), "{step}");
        for name in ["one", "two"] {
            let count = *log(&daemon, "origin", name).last().unwrap_or(&0);
            wait_past(&daemon, "origin", name, count + 2).await;
        }
    }
    for step in STEPS {
        daemon.terminate();
        daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{step}=kill")));
        daemon.run().await;
        runtime = daemon.runtime().await;
        checkpoint_pod(&mut runtime, &pod, &output, &[&ids[0], &ids[1]]).await.expect_err(step);
        daemon.wait_death();
        // Without any daemon: the supervisor has seen that it is gone.
        for name in ["one", "two"] {
            let count = *log(&daemon, "origin", name).last().unwrap();
            wait_past(&daemon, "origin", name, count + 2).await;
        }
        daemon.set_env("CREEL_FAILPOINTS", None);
        daemon.run().await;
        assert!(is_empty(&output), "{step}");
    }
    runtime = daemon.runtime().await;
    checkpoint_pod(&mut runtime, &pod, &output, &[&ids[0], &ids[1]]).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    daemon.finish().await;
}

/// A criu that never ends: the caller's limit passes, or the caller goes away.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever() {
    let mut daemon = Daemon::prepare(&[], &[]);
    let slow = daemon.dir.path().join("slow-criu");
    std::fs::write(&slow, "#!/bin/sh\n[ \"$1\" != --version ] || { echo 'Version: 4.2.1'; exit; }\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
    with_criu(&daemon, slow.to_str().unwrap());
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let (pod, ids, _) = counters(&daemon, &mut runtime, "origin").await;
    let output = directory(&daemon, "checkpoint");
    for round in 0..2 {
        let mut request = tonic::Request::new(cri::CheckpointPodRequest {
            pod_sandbox_id: pod.clone(),
            output_path: output.display().to_string(),
            container_ids: ids.clone(),
            options: BTreeMap::new(),
        });
        let mut caller = runtime.clone();
        if round == 0 {
            request.set_timeout(Duration::from_secs(2));
            let error = caller.checkpoint_pod(request).await.unwrap_err();
            assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
        } else {
            let call = tokio::spawn(async move { caller.checkpoint_pod(request).await });
            tokio::time::sleep(Duration::from_millis(500)).await;
            call.abort();
        }
        for name in ["one", "two"] {
            let count = *log(&daemon, "origin", name).last().unwrap_or(&0);
            wait_past(&daemon, "origin", name, count + 2).await;
        }
        let empty = || is_empty(&output);
        for _ in 0..3000 {
            if empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(empty());
    }
    daemon.finish().await;
}

/// CR-05: a checkpoint that lies is refused, and nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn cr_05_hostile_checkpoints_are_refused() {
    let Some(daemon) = start(&[]).await else { return };
    let mut runtime = daemon.runtime().await;
    let (pod, ids, configs) = counters(&daemon, &mut runtime, "origin").await;
    wait_past(&daemon, "origin", "two", 2).await;
    let good = directory(&daemon, "good");
    checkpoint_pod(&mut runtime, &pod, &good, &[&ids[0], &ids[1]]).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    let secret = daemon.dir.path().join("secret");
    std::fs::write(&secret, "host").unwrap();

    type Attack = fn(&Path, &Path);
    let attacks: [(&str, Attack); 13] = [
        ("pod.dump", |dir, _| std::fs::remove_file(dir.join("pod.dump")).unwrap()),
        ("is damaged", |dir, _| std::fs::write(dir.join("pod.dump"), [0xff; 99]).unwrap()),
        ("is damaged", |dir, _| std::fs::write(dir.join("0/creel.dump"), b"\x81\x01").unwrap()),
        ("rootfs-diff.tar", |dir, secret| replace(&dir.join("0/rootfs-diff.tar"), secret)),
        ("rootfs-diff.tar", |dir, _| std::fs::write(dir.join("1/rootfs-diff.tar"), [b'x'; 2000]).unwrap()),
        ("rootfs-diff.tar", |dir, _| std::fs::remove_file(dir.join("0/rootfs-diff.tar")).unwrap()),
        ("is cut off: it is to have", |dir, _| {
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("0/checkpoint/pages-1.img")).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("is of a kind", |dir, _| std::fs::write(dir.join("0/checkpoint/tmpfs-dev-41.tar.gz.img"), "").unwrap()),
        ("files.img", |dir, secret| replace(&dir.join("0/checkpoint/files.img"), secret)),
        ("seccomp", |dir, _| std::fs::remove_file(dir.join("0/checkpoint/seccomp.img")).unwrap()),
        ("mount", |dir, _| {
            let name = listed(&dir.join("0/checkpoint")).into_iter().find(|name| name.starts_with("mountpoints-")).unwrap();
            let path = dir.join("0/checkpoint").join(name);
            let bytes = std::fs::read(&path).unwrap();
            // The key of what the container's /dev is to come from.
            let at = bytes.windows(8).position(|w| w == b"\x92\x01\x05/sys\x00" || w.starts_with(b"\x92\x01\x04/dev")).unwrap();
            let mut bytes = bytes;
            bytes[at + 4] = b'x';
            std::fs::write(path, bytes).unwrap();
        }),
        ("inventory.img", |dir, _| std::fs::write(dir.join("0/checkpoint/inventory.img"), b"rubbish").unwrap()),
        ("restore", |dir, _| {
            // Consistent so far as is looked at, and not what criu understands.
            let path = dir.join("0/checkpoint/mm-1.img");
            std::fs::write(&path, b"\x19\x43\x56\x54rubbish").unwrap();
        }),
    ];
    for (number, (words, attack)) in attacks.into_iter().enumerate() {
        let bad = daemon.dir.path().join(format!("bad-{number}"));
        assert!(std::process::Command::new("cp").arg("-a").arg(&good).arg(&bad).status().unwrap().success());
        attack(&bad, &secret);
        let config = pod_config(&daemon, "copy");
        let error = restore(&mut runtime, &bad, &config, &configs).await.expect_err(words);
        assert!(error.message().contains(words) && !error.message().contains("criu/tun.c"), "{number} {words}: {error}");
        assert_eq!(error.code(), Code::FailedPrecondition, "{number} {words}: {error}");
        check::nothing_left(&daemon);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "host");
    }
    let config = pod_config(&daemon, "copy");
    for (words, containers) in [
        ("names", vec![configs[0].clone()]),
        ("twice", vec![configs[0].clone(), configs[0].clone()]),
        ("command", vec![configs[0].clone(), cri::ContainerConfig { command: vec!["/bin/sh".into()], ..configs[1].clone() }]),
        (
            "environment",
            vec![
                configs[0].clone(),
                cri::ContainerConfig { envs: vec![cri::KeyValue { key: "A".into(), value: "b".into() }], ..configs[1].clone() },
            ],
        ),
    ] {
        let error = restore(&mut runtime, &good, &config, &containers).await.expect_err(words);
        assert!(error.message().contains(words), "{words}: {error}");
        check::nothing_left(&daemon);
    }
    let mut request = restore_request(&good, &config, &configs);
    request.get_mut().options.insert("root".into(), "/".into());
    assert_eq!(runtime.restore_pod(request).await.unwrap_err().code(), Code::InvalidArgument);
    // Its confinement is the request's: here it may do less than what was captured could.
    let mut confined = configs.clone();
    let security = confined[0].linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.capabilities = Some(cri::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    let error = restore(&mut runtime, &good, &config, &confined).await.unwrap_err();
    // The filter depends on the capabilities, and is looked at first.
    assert!(error.message().contains("seccomp"), "{error}");
    check::nothing_left(&daemon);
    restore(&mut runtime, &good, &config, &configs).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    daemon.finish().await;
}

fn replace(path: &Path, by: &Path) {
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(by, path).unwrap();
}

fn listed(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
