//! NRI plugins: what they are told and in which order, what they may change, and that pods go on whatever they do.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::runtime as cri;
use nri::{Called, Stub, proto as p};
use tokio::{io::AsyncWriteExt, sync::Notify, task::JoinHandle};

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

/// What a plugin does with a call.
enum Act {
    Accept,
    Refuse(&'static str),
    Adjust(Box<p::CreateContainerResponse>),
    Hold(Arc<Notify>),
    Hang,
    Die,
}

/// A plugin of the test's own.
struct Plugin {
    /// Method and id of what it was about.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    /// Containers of the state that it was synchronized with.
    synced: Arc<Mutex<Vec<String>>>,
    asks: tokio::sync::mpsc::Sender<p::UpdateContainersRequest>,
    answers: tokio::sync::mpsc::Receiver<p::UpdateContainersResponse>,
    ready: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Plugin {
    /// Connects; returns once it is synchronized.
    async fn start(daemon: &Daemon, index: &str, act: impl Fn(&Called) -> Act + Send + 'static) -> Self {
        let plugin = Self::connect(daemon, index, act).await;
        let ready = tokio::time::timeout(Duration::from_secs(20), plugin.ready.notified()).await;
        ready.unwrap_or_else(|_| panic!("not synchronized\n{}", daemon.log()));
        plugin
    }

    async fn connect(daemon: &Daemon, index: &str, act: impl Fn(&Called) -> Act + Send + 'static) -> Self {
        let mut stub = Stub::connect(&socket(daemon)).await.unwrap();
        stub.register(index, "test").await.unwrap();
        let (seen, synced, ready): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>, Arc<Notify>) = Default::default();
        let (asks, mut asked) = tokio::sync::mpsc::channel(1);
        let (answer, answers) = tokio::sync::mpsc::channel(1);
        let (tell, state, done) = (seen.clone(), synced.clone(), ready.clone());
        let task = tokio::spawn(async move {
            loop {
                let called = tokio::select! {
                    called = stub.next() => called,
                    Some(request) = asked.recv() => {
                        answer.send(stub.update_containers(&request).await.unwrap()).await.unwrap();
                        continue;
                    }
                };
                let Some(called) = called else { return };
                if called.method == "Synchronize" {
                    let all: p::SynchronizeRequest = called.request().unwrap();
                    state.lock().unwrap().extend(all.containers.iter().map(|c| c.id.clone()));
                }
                tell.lock().unwrap().push((called.method.clone(), subject(&called)));
                let synchronize = called.method == "Synchronize";
                match act(&called) {
                    Act::Die => return,
                    Act::Hang => std::mem::forget(called),
                    Act::Refuse(why) => called.refuse(why).await,
                    Act::Adjust(response) => called.answer(&*response).await,
                    Act::Accept => called.answer(&p::Empty {}).await,
                    Act::Hold(until) => {
                        until.notified().await;
                        called.answer(&p::Empty {}).await;
                    }
                }
                if synchronize {
                    done.notify_one();
                }
            }
        });
        Self { seen, synced, asks, answers, ready, task }
    }

    fn of(&self, id: &str) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|(_, about)| about == id).map(|(method, _)| method.clone()).collect()
    }

    fn knows(&self, id: &str) -> bool {
        self.synced.lock().unwrap().iter().any(|known| known == id) || self.of(id).iter().any(|method| method == "CreateContainer")
    }

    async fn ask(&mut self, request: p::UpdateContainersRequest) -> p::UpdateContainersResponse {
        self.asks.send(request).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.answers.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("run/nri/nri.sock")
}

/// The container, else the pod, that a call is about: all these messages begin alike.
fn subject(called: &Called) -> String {
    let of_container = p::CreateContainerRequest::default();
    let request: p::CreateContainerRequest = called.request().unwrap_or(of_container);
    match called.method.as_str() {
        "Configure" | "Synchronize" | "Shutdown" => String::new(),
        method if method.ends_with("PodSandbox") => request.pod.unwrap_or_default().id,
        _ => request.container.unwrap_or_default().id,
    }
}

fn adjusted(adjust: p::ContainerAdjustment) -> Act {
    Act::Adjust(Box::new(p::CreateContainerResponse { adjust: Some(adjust), ..Default::default() }))
}

fn env(key: &str, value: &str) -> p::KeyValue {
    p::KeyValue { key: key.into(), value: value.into() }
}

/// Waits until something is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

async fn remove_all(daemon: &Daemon) {
    let mut runtime = daemon.runtime().await;
    for pod in runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items {
        runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod.id }).await.unwrap();
    }
}

#[tokio::test]
async fn plugins_are_told_in_order() {
    let daemon = Daemon::start().await;
    let plugin = Plugin::start(&daemon, "00", |_| Act::Accept).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let status = runtime.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner();
    assert_eq!(status.info["nri"], r#"{"plugins":["00-test"]}"#);
    let config = pods::pod("order");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let one = pods::run(&mut runtime, &pod, &config, &pods::container("one", BUSYBOX, "sleep 1000")).await;
    let linux = cri::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    let update = cri::UpdateContainerResourcesRequest { container_id: one.clone(), linux: Some(linux), ..Default::default() };
    runtime.update_container_resources(update).await.unwrap();
    let two = pods::run(&mut runtime, &pod, &config, &pods::container("two", BUSYBOX, "exit 3")).await;
    // Nobody asks for its end.
    until("StopContainer of one that ended by itself", || plugin.of(&two).iter().any(|method| method == "StopContainer")).await;
    runtime.stop_container(cri::StopContainerRequest { container_id: one.clone(), timeout: 0 }).await.unwrap();
    runtime.stop_container(cri::StopContainerRequest { container_id: one.clone(), timeout: 0 }).await.unwrap();
    for _ in 0..2 {
        runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    }
    remove_all(&daemon).await;
    let begin = ["CreateContainer", "ValidateContainerAdjustment", "PostCreateContainer", "StartContainer", "PostStartContainer"];
    let end = ["StopContainer", "RemoveContainer"];
    assert_eq!(plugin.of(&one), [&begin[..], &["UpdateContainer", "PostUpdateContainer"], &end].concat());
    assert_eq!(plugin.of(&two), [&begin[..], &end].concat());
    assert_eq!(plugin.of(&pod), ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
    drop(plugin);
    daemon.finish().await;
}

#[tokio::test]
async fn a_plugin_changes_a_container() {
    let daemon = Daemon::start().await;
    let source = daemon.dir.path().join("given");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "from the plugin").unwrap();
    let source = source.display().to_string();
    let first = move |called: &Called| match called.method.as_str() {
        "CreateContainer" => adjusted(p::ContainerAdjustment {
            env: vec![env("ADDED", "1"), env("-GONE", "")],
            mounts: vec![
                p::Mount {
                    destination: "/given".into(),
                    r#type: "bind".into(),
                    source: source.clone(),
                    options: vec!["ro".into()],
                },
                p::Mount {
                    destination: "/mem".into(),
                    r#type: "tmpfs".into(),
                    options: vec!["size=1m".into()],
                    ..Default::default()
                },
            ],
            annotations: [("nri".to_owned(), "was here".to_owned())].into(),
            rlimits: vec![p::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 77, soft: 66 }],
            linux: Some(p::LinuxContainerAdjustment {
                oom_score_adj: Some(p::OptionalInt { value: 500 }),
                devices: vec![p::LinuxDevice {
                    path: "/dev/mine".into(),
                    r#type: "c".into(),
                    major: 1,
                    minor: 5,
                    ..Default::default()
                }],
                io_priority: Some(p::LinuxIoPriority { class: 2, priority: 7 }),
                scheduler: Some(p::LinuxScheduler { policy: 4, nice: 5, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        _ => Act::Accept,
    };
    let seen: Arc<Mutex<Option<p::Container>>> = Arc::default();
    let tell = seen.clone();
    let second = move |called: &Called| match called.method.as_str() {
        "CreateContainer" => {
            *tell.lock().unwrap() = called.request::<p::CreateContainerRequest>().unwrap().container;
            let cpu = p::LinuxCpu { shares: Some(p::OptionalUInt64 { value: 333 }), ..Default::default() };
            let resources = Some(p::LinuxResources { cpu: Some(cpu), ..Default::default() });
            let linux = Some(p::LinuxContainerAdjustment { resources, ..Default::default() });
            adjusted(p::ContainerAdjustment { linux, ..Default::default() })
        }
        _ => Act::Accept,
    };
    // Asked by index, not in the order in which they came.
    let later = Plugin::start(&daemon, "10", second).await;
    let earlier = Plugin::start(&daemon, "00", first).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("changed");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut wanted = pods::container("c", BUSYBOX, "sleep 1000");
    wanted.envs = vec![cri::KeyValue { key: "GONE".into(), value: "x".into() }];
    let id = pods::run(&mut runtime, &pod, &config, &wanted).await;
    let script = "cat /given/file; touch /given/x 2>&1 | grep -o Read-only; echo $ADDED-$GONE; ulimit -Sn; ulimit -Hn; \
                  head -c 3 /dev/mine | od -An -tx1; df /mem | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let (_, out, err) = pods::exec(&mut runtime, &id, &["sh", "-c", script]).await;
    assert_eq!(out, "from the pluginRead-only\n1-\n66\n77\n 00 00 00\n1024", "{err}");
    let (_, out, _) =
        pods::exec(&mut runtime, &id, &["sh", "-c", "cat /proc/1/oom_score_adj; cut -d' ' -f19,41 /proc/1/stat"]).await;
    assert_eq!(out, "500\n5 3");
    let status = pods::status(&mut runtime, &id).await;
    let linux = status.resources.unwrap().linux.unwrap();
    assert_eq!((linux.cpu_shares, linux.oom_score_adj), (333, 500));
    assert!(status.annotations.is_empty(), "the client's are the client's");
    let seen = seen.lock().unwrap().take().unwrap();
    assert!(seen.env.contains(&"ADDED=1".to_owned()) && !seen.env.iter().any(|entry| entry.starts_with("GONE")));
    assert_eq!(seen.annotations, [("nri".to_owned(), "was here".to_owned())].into());
    drop((earlier, later));
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn a_refusal_undoes_everything_and_can_be_tried_again() {
    let daemon = Daemon::start().await;
    let refused: Mutex<BTreeMap<String, ()>> = Mutex::default();
    let plugin = Plugin::start(&daemon, "00", move |called| {
        let hook = ["RunPodSandbox", "CreateContainer", "StartContainer"].contains(&called.method.as_str());
        match hook && refused.lock().unwrap().insert(called.method.clone(), ()).is_none() {
            true => Act::Refuse("not today"),
            false => Act::Accept,
        }
    })
    .await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("refused");
    let error = pods::run_pod(&mut runtime, &config).await.unwrap_err();
    assert!(error.message().contains("NRI plugin 00-test refused RunPodSandbox: not today"), "{error}");
    let listed = runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    assert!(listed.is_empty(), "{listed:?}");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let wanted = pods::container("c", BUSYBOX, "sleep 1000");
    let error = pods::create(&mut runtime, &pod, &config, &wanted).await.unwrap_err();
    assert!(error.message().contains("refused CreateContainer: not today"), "{error}");
    let listed = runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap().into_inner().containers;
    assert!(listed.is_empty(), "{listed:?}");
    let id = pods::create(&mut runtime, &pod, &config, &wanted).await.unwrap();
    let error = pods::start(&mut runtime, &id).await.unwrap_err();
    assert!(error.message().contains("refused StartContainer: not today"), "{error}");
    assert_eq!(pods::status(&mut runtime, &id).await.state(), cri::ContainerState::ContainerCreated);
    pods::start(&mut runtime, &id).await.unwrap();
    // Those that came to nothing are over for the plugin too.
    let seen = plugin.seen.lock().unwrap().clone();
    let failed = seen.iter().find(|(method, _)| method == "RunPodSandbox").unwrap().1.clone();
    assert_eq!(plugin.of(&failed), ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
    let failed = seen.iter().find(|(method, _)| method == "CreateContainer").unwrap().1.clone();
    assert_eq!(plugin.of(&failed), ["CreateContainer", "StopContainer", "RemoveContainer"]);
    drop(plugin);
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let daemon = Daemon::start().await;
    let rdt = p::LinuxContainerAdjustment { rdt: Some(p::LinuxRdt::default()), ..Default::default() };
    let sysctl = p::LinuxContainerAdjustment { sysctl: [("net.a".to_owned(), "1".to_owned())].into(), ..Default::default() };
    let path = p::LinuxContainerAdjustment { cgroups_path: "/elsewhere".into(), ..Default::default() };
    let hooks = p::Hooks { prestart: vec![p::Hook { path: "true".into(), ..Default::default() }], ..Default::default() };
    let mount = p::Mount { destination: "/proc/sys".into(), r#type: "bind".into(), source: "/".into(), options: Vec::new() };
    let linux = |linux| p::ContainerAdjustment { linux: Some(linux), ..Default::default() };
    let cases = [
        (linux(rdt), "linux.rdt"),
        (linux(sysctl), "linux.sysctl"),
        (linux(path), "linux.cgroups_path \"/elsewhere\": must be a name directly below the pod's cgroup"),
        (p::ContainerAdjustment { hooks: Some(hooks), ..Default::default() }, "hooks \"true\": its path must be absolute"),
        (p::ContainerAdjustment { mounts: vec![mount], ..Default::default() }, "nothing may be mounted on /proc"),
        (p::ContainerAdjustment { env: vec![env("A=B", "")], ..Default::default() }, "its name has `=`"),
    ];
    let (answers, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let answers = Mutex::new(answers.into_iter());
    let plugin = Plugin::start(&daemon, "00", move |called| match called.method.as_str() {
        "CreateContainer" => adjusted(answers.lock().unwrap().next().unwrap_or_default()),
        _ => Act::Accept,
    })
    .await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("cannot");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let wanted = pods::container("c", BUSYBOX, "sleep 1000");
    for why in expected {
        let error = pods::create(&mut runtime, &pod, &config, &wanted).await.unwrap_err();
        assert!(error.message().contains(why), "{why}: {error}");
    }
    // Two that want different things.
    let other = Plugin::start(&daemon, "20", |called| match called.method.as_str() {
        "CreateContainer" => adjusted(p::ContainerAdjustment { env: vec![env("X", "2")], ..Default::default() }),
        _ => Act::Accept,
    })
    .await;
    let third = Plugin::start(&daemon, "30", |called| match called.method.as_str() {
        "CreateContainer" => adjusted(p::ContainerAdjustment { env: vec![env("X", "3")], ..Default::default() }),
        "ValidateContainerAdjustment" => panic!("nothing to validate"),
        _ => Act::Accept,
    })
    .await;
    let error = pods::create(&mut runtime, &pod, &config, &wanted).await.unwrap_err();
    assert!(error.message().contains("NRI plugins 20-test and 30-test both set Env \"X\""), "{error}");
    drop((plugin, other, third));
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_plugin() {
    let daemon = Daemon::start().await;
    let plugin = Plugin::start(&daemon, "00", |called| match called.method.as_str() {
        "CreateContainer" => Act::Hang,
        _ => Act::Accept,
    })
    .await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("slow");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let wanted = pods::container("c", BUSYBOX, "sleep 1000");
    let (mut other, slow_pod, slow_config) = (daemon.runtime().await, pod.clone(), config.clone());
    let creation = tokio::spawn(async move { pods::create(&mut other, &slow_pod, &slow_config, &wanted).await });
    until("the plugin is asked", || plugin.seen.lock().unwrap().iter().any(|(method, _)| method == "CreateContainer")).await;
    // While it thinks, others are answered and other pods are made.
    let listed = runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap().into_inner().containers;
    assert!(listed.is_empty(), "not visible while a plugin thinks");
    let asked = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    runtime.pod_sandbox_status(asked).await.unwrap();
    runtime.status(cri::StatusRequest::default()).await.unwrap();
    assert!(!creation.is_finished(), "the plugin has its time");
    let id = creation.await.unwrap().unwrap();
    pods::start(&mut runtime, &id).await.unwrap();
    until("its absence is logged", || daemon.log().contains("no answer to CreateContainer within 2s")).await;
    drop(plugin);
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn plugins_that_die_or_talk_nonsense_harm_nobody() {
    let daemon = Daemon::start().await;
    let plugin = Plugin::start(&daemon, "00", |called| match called.method.as_str() {
        "RunPodSandbox" => Act::Die,
        _ => Act::Accept,
    })
    .await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0, 0, 0, 2, 0, 0x40, 0, 0, 0, 0, 0, 1], &[]] {
        let mut stream = tokio::net::UnixStream::connect(socket(&daemon)).await.unwrap();
        // It may have been closed already.
        stream.write_all(garbage).await.ok();
    }
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("survives");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let after = Plugin::start(&daemon, "00", |_| Act::Accept).await;
    assert_eq!(after.synced.lock().unwrap().len(), 1);
    until("its end is logged", || daemon.log().contains("pods go on without it")).await;
    drop((plugin, after));
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn nothing_is_lost_while_a_plugin_is_synchronized() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("sync");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut all = vec![pods::run(&mut runtime, &pod, &config, &pods::container("before", BUSYBOX, "sleep 1000")).await];
    let release = Arc::new(Notify::new());
    let held = release.clone();
    let plugin = Plugin::connect(&daemon, "00", move |called| match called.method.as_str() {
        "Synchronize" => Act::Hold(held.clone()),
        _ => Act::Accept,
    })
    .await;
    let mut creations = Vec::new();
    for n in 0..6 {
        let (mut runtime, pod, config) = (daemon.runtime().await, pod.clone(), config.clone());
        let wanted = pods::container(&format!("during{n}"), BUSYBOX, "sleep 1000");
        creations.push(tokio::spawn(async move { pods::run(&mut runtime, &pod, &config, &wanted).await }));
        if n == 2 {
            until("it is being synchronized", || !plugin.seen.lock().unwrap().is_empty()).await;
        }
    }
    release.notify_one();
    for creation in creations {
        all.push(creation.await.unwrap());
    }
    for id in &all {
        until("the plugin knows every container", || plugin.knows(id)).await;
    }
    drop(plugin);
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn a_plugin_asks_for_updates_and_evictions() {
    let daemon = Daemon::start().await;
    let mut plugin = Plugin::start(&daemon, "00", |_| Act::Accept).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("asks");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let update = |id: &str, shares| {
        let cpu = p::LinuxCpu { shares: Some(p::OptionalUInt64 { value: shares }), ..Default::default() };
        let resources = Some(p::LinuxResources { cpu: Some(cpu), ..Default::default() });
        p::ContainerUpdate { container_id: id.into(), linux: Some(p::LinuxContainerUpdate { resources }), ignore_failure: false }
    };
    let unknown = update(&"ab".repeat(32), 2);
    let evict = Vec::new();
    let request = p::UpdateContainersRequest { update: vec![update(&id, 777), unknown.clone(), update("x", 2)], evict };
    assert_eq!(plugin.ask(request).await.failed, [unknown, update("x", 2)]);
    let linux = pods::status(&mut runtime, &id).await.resources.unwrap().linux.unwrap();
    assert_eq!(linux.cpu_shares, 777);
    let evict = vec![p::ContainerEviction { container_id: id.clone(), reason: "too loud".into() }];
    plugin.ask(p::UpdateContainersRequest { update: Vec::new(), evict }).await;
    pods::wait_exit(&mut runtime, &id).await;
    assert!(daemon.log().contains("too loud"));
    drop(plugin);
    remove_all(&daemon).await;
    daemon.finish().await;
}

#[tokio::test]
async fn plugins_come_back_after_a_crash_of_the_daemon() {
    let mut daemon = Daemon::start().await;
    let plugin = Plugin::start(&daemon, "00", |_| Act::Accept).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("crash");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    daemon.kill();
    until("the plugin notices", || plugin.task.is_finished()).await;
    daemon.run().await;
    let again = Plugin::start(&daemon, "00", |_| Act::Accept).await;
    assert_eq!(*again.synced.lock().unwrap(), std::slice::from_ref(&id));
    remove_all(&daemon).await;
    assert_eq!(again.of(&id), ["StopContainer", "RemoveContainer"]);
    assert_eq!(again.of(&pod), ["StopPodSandbox", "RemovePodSandbox"]);
    daemon.terminate();
    until("it is told of the daemon's end", || again.seen.lock().unwrap().iter().any(|(method, _)| method == "Shutdown")).await;
    drop((plugin, again));
    daemon.finish().await;
}

/// Speaks just enough: registers on descriptor 3, answers everything, writes down what it is asked.
const INSTALLED: &str = r#"#!/usr/bin/env python3
import os, socket, struct, sys
s = socket.socket(fileno=int(os.environ["NRI_PLUGIN_SOCKET"]))
out = open(os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(sys.argv[0]))), "told"), "a", buffering=1)
out.write("%s %s %s\n" % (os.environ["NRI_PLUGIN_IDX"], os.environ["NRI_PLUGIN_NAME"], os.environ["NRI_PLUGIN_SOCKET"]))
def send(channel, stream, kind, data):
    message = struct.pack(">IIBB", len(data), stream, kind, 0) + data
    s.sendall(struct.pack(">II", channel, len(message)) + message)
def exactly(n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more: sys.exit(0)
        data += more
    return data
def field(number, text):
    return bytes([number << 3 | 2, len(text)]) + text
send(2, 1, 1, field(1, b"nri.pkg.api.v1alpha1.Runtime") + field(2, b"RegisterPlugin"))
buffers = {1: b"", 2: b""}
while True:
    channel, length = struct.unpack(">II", exactly(8))
    buffers[channel] += exactly(length)
    while len(buffers[channel]) >= 10:
        n, stream, kind, _ = struct.unpack(">IIBB", buffers[channel][:10])
        if len(buffers[channel]) < 10 + n: break
        data, buffers[channel] = buffers[channel][10:10 + n], buffers[channel][10 + n:]
        if kind == 1:
            at = 2 + data[1]
            method = data[at + 2:at + 2 + data[at + 1]].decode()
            out.write(method + (" " + "its configuration" if b"its configuration" in data else "") + "\n")
            send(channel, stream, 2, b"")
"#;

#[tokio::test]
async fn pre_installed_plugins_are_started_and_ended() {
    use std::os::unix::fs::PermissionsExt;
    let mut daemon = Daemon::prepare(&[], &[]);
    let at = |name: &str| daemon.dir.path().join(name);
    for dir in ["plugins", "plugin-conf", "config.d"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    let text = format!(
        "[nri]\ndisable_connections = true\nplugin_path = \"{}\"\nplugin_config_path = \"{}\"\n",
        at("plugins").display(),
        at("plugin-conf").display()
    );
    std::fs::write(at("config.d/nri.toml"), text).unwrap();
    std::fs::write(at("plugins/42-script"), INSTALLED).unwrap();
    std::fs::set_permissions(at("plugins/42-script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(at("plugin-conf/script.conf"), "its configuration").unwrap();
    let told = at("told");
    daemon.run().await;
    let mut runtime = daemon.runtime().await;
    assert!(!socket(&daemon).exists());
    pods::run_pod(&mut runtime, &pods::pod("installed")).await.unwrap();
    remove_all(&daemon).await;
    daemon.terminate();
    let expected =
        "42 script 3\nConfigure its configuration\nSynchronize\nRunPodSandbox\nStopPodSandbox\nRemovePodSandbox\nShutdown\n";
    assert_eq!(std::fs::read_to_string(told).unwrap(), expected, "{}", daemon.log());
    daemon.finish().await;
}
