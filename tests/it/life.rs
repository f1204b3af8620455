//! Containers of people: they end and start again with their files, keep their policies through the death of the daemon,
//! and a kubelet never sees them.

use std::time::Duration;

use api::{
    creel::{
        self as own, attach_request::Message as ToAttached, container_state::Status as State, containers_client::ContainersClient,
        process_output::Message as FromProcess, system_client::SystemClient, wait_container_request::Condition,
    },
    runtime as cri,
};
use tonic::{Code, transport::Channel};

use crate::{
    check,
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

type Containers = ContainersClient<Channel>;

/// A shell script in a container that nobody named.
fn script(script: &str) -> own::CreateContainerRequest {
    let config = own::ContainerConfig {
        image: BUSYBOX.into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..Default::default()
    };
    let host = own::HostConfig { network: "none".into(), ..Default::default() };
    own::CreateContainerRequest { name: String::new(), config: Some(config), host: Some(host) }
}

fn named(name: &str, text: &str) -> own::CreateContainerRequest {
    own::CreateContainerRequest { name: name.into(), ..script(text) }
}

fn with_policy(name: &str, text: &str, policy: &str, maximum_retries: u32) -> own::CreateContainerRequest {
    let mut request = named(name, text);
    request.host.as_mut().unwrap().restart = Some(own::RestartPolicy { name: policy.into(), maximum_retries });
    request
}

/// Ends at once when it is told to.
const OBEDIENT: &str = "trap 'exit 7' TERM; while :; do sleep 0.05; done";

struct World {
    daemon: Daemon,
    containers: Containers,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(env: &[(&str, &str)]) -> Self {
        let daemon = Daemon::with(&[], env).await;
        pods::pull(&daemon, BUSYBOX).await;
        let containers = daemon.containers().await;
        Self { daemon, containers }
    }

    async fn create(&mut self, request: own::CreateContainerRequest) -> String {
        let answer = self.containers.create(request).await;
        answer.unwrap_or_else(|e| panic!("{e}\n{}", self.daemon.log())).into_inner().id
    }

    async fn start(&mut self, container: &str) {
        let request = own::StartContainerRequest { container: container.into() };
        self.containers.start(request).await.unwrap_or_else(|e| panic!("{e}\n{}", self.daemon.log()));
    }

    async fn run(&mut self, request: own::CreateContainerRequest) -> String {
        let id = self.create(request).await;
        self.start(&id).await;
        id
    }

    async fn stop(&mut self, container: &str) {
        let request = own::StopContainerRequest { container: container.into(), timeout: Some(30), ..Default::default() };
        self.containers.stop(request).await.unwrap_or_else(|e| panic!("{e}\n{}", self.daemon.log()));
    }

    async fn wait(&mut self, container: &str, condition: Condition) -> i32 {
        let request = own::WaitContainerRequest { container: container.into(), condition: condition.into() };
        let answer = tokio::time::timeout(Duration::from_secs(60), self.containers.wait(request)).await;
        answer.unwrap_or_else(|_| panic!("no end\n{}", self.daemon.log())).unwrap().into_inner().exit_code
    }

    async fn remove(&mut self, container: &str, force: bool) -> Result<(), tonic::Status> {
        let request = own::RemoveContainerRequest { container: container.into(), force, volumes: false };
        self.containers.remove(request).await.map(drop)
    }

    async fn state(&mut self, container: &str) -> own::ContainerState {
        self.summary(container).await.state.unwrap()
    }

    async fn summary(&mut self, container: &str) -> own::ContainerSummary {
        let request = own::InspectContainerRequest { container: container.into(), size: false };
        let answer = self.containers.inspect(request).await;
        answer.unwrap_or_else(|e| panic!("{e}\n{}", self.daemon.log())).into_inner().summary.unwrap()
    }

    /// Waits until a condition holds.
    async fn until(&mut self, container: &str, what: &str, holds: impl Fn(&own::ContainerState) -> bool) -> own::ContainerState {
        for _ in 0..3000 {
            let state = self.state(container).await;
            if holds(&state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: {:?}\n{}", self.state(container).await, self.daemon.log());
    }

    async fn names(&mut self, all: bool) -> Vec<String> {
        let request = own::ListContainersRequest { all, ..Default::default() };
        self.containers.list(request).await.unwrap().into_inner().containers.into_iter().map(|c| c.name).collect()
    }

    async fn logs(&mut self, container: &str, change: impl FnOnce(&mut own::LogsRequest)) -> String {
        let mut request = own::LogsRequest { container: container.into(), stdout: true, stderr: true, ..Default::default() };
        change(&mut request);
        let mut stream = self.containers.logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(entry) = stream.message().await.unwrap() {
            text.extend(entry.data);
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until its log has these words in it.
    async fn said(&mut self, container: &str, words: &str) {
        for _ in 0..3000 {
            if self.logs(container, |_| {}).await.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{words:?} was not said\n{}", self.daemon.log());
    }

    /// The daemon dies and comes back.
    async fn crash(&mut self) {
        self.daemon.kill();
        self.come_back().await;
    }

    async fn come_back(&mut self) {
        self.daemon.run().await;
        self.containers = self.daemon.containers().await;
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, tonic::Status>, code: Code, words: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message().contains(words)), (code, true), "{status:?}");
}

/// Create, start, end, start again: the files and the log stay, and go with it.
#[tokio::test(flavor = "multi_thread")]
async fn it_starts_again_with_its_files() {
    let mut world = World::new().await;
    let id = world.create(named("web", "echo run >> /count; cat /count | wc -l; echo oops >&2; exit 3")).await;
    assert_eq!(world.state("web").await.status(), State::Created);
    assert_eq!(world.names(false).await, Vec::<String>::new());
    for runs in 1..=3 {
        world.start("web").await;
        assert_eq!(world.wait(&id, Condition::NotRunning).await, 3);
        let state = world.state("web").await;
        assert_eq!((state.status(), state.exit_code), (State::Exited, 3));
        assert!(state.started_at > 0 && state.finished_at >= state.started_at);
        let log = world.logs("web", |request| request.stderr = false).await;
        let counts: Vec<u32> = log.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(counts, (1..=runs).collect::<Vec<_>>());
    }
    assert_eq!(world.logs(&id[..12], |request| request.stdout = false).await, "oops\n".repeat(3));
    assert_eq!(world.logs("/web", |request| request.tail = Some(2)).await.lines().count(), 2);
    world.crash().await;
    assert_eq!((world.names(true).await, world.state("web").await.exit_code), (vec!["web".to_owned()], 3));
    world.start("web").await;
    world.wait("web", Condition::NotRunning).await;
    assert!(world.logs("web", |_| {}).await.contains('4'));
    world.remove("web", false).await.unwrap();
    refused(world.remove("web", true).await, Code::NotFound, "No such container: web");
    world.daemon.finish().await;
}

/// Names, ids and beginnings of ids; what is refused, in docker's words.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_refusals() {
    let mut world = World::new().await;
    let id = world.create(named("one", OBEDIENT)).await;
    refused(world.containers.create(named("one", "true")).await, Code::AlreadyExists, "is already in use by container");
    refused(world.containers.create(named("a/b", "true")).await, Code::InvalidArgument, "Invalid container name (a/b)");
    let mut request = script("true");
    request.config.as_mut().unwrap().image = "nothing:here".into();
    refused(world.containers.create(request).await, Code::NotFound, "No such image: nothing:here");
    let removed = with_policy("two", "true", "always", 0);
    let mut request = removed.clone();
    request.host.as_mut().unwrap().auto_remove = true;
    refused(world.containers.create(request).await, Code::InvalidArgument, "can't create 'AutoRemove' container");
    refused(world.containers.create(with_policy("two", "true", "perhaps", 0)).await, Code::InvalidArgument, "unknown policy");
    refused(world.containers.create(with_policy("two", "true", "always", 3)).await, Code::InvalidArgument, "maximum retry count");
    let other = world.create(removed).await;
    let rename = |container: &str, name: &str| own::RenameContainerRequest { container: container.into(), name: name.into() };
    refused(world.containers.rename(rename("one", "two")).await, Code::AlreadyExists, "Conflict. The container name \"/two\"");
    world.containers.rename(rename(&id[..10], "first")).await.unwrap();
    assert_eq!(world.summary("first").await.id, id);
    let inspect = |text: &str| own::InspectContainerRequest { container: text.into(), size: false };
    refused(world.containers.inspect(inspect("one")).await, Code::NotFound, "No such container: one");
    let common = id.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    if common > 0 {
        refused(world.containers.inspect(inspect(&id[..common])).await, Code::InvalidArgument, "multiple IDs found");
    }
    let kill = |text: &str| own::KillContainerRequest { container: text.into(), signal: "TERM".into() };
    refused(world.containers.kill(kill("first")).await, Code::FailedPrecondition, "is not running");
    world.stop("first").await;
    world.start("first").await;
    world.start("first").await;
    refused(world.remove("first", false).await, Code::FailedPrecondition, "container is running: stop the container before");
    let reference = own::ContainerRef { container: "first".into() };
    refused(world.containers.unpause(reference.clone()).await, Code::FailedPrecondition, "is not paused");
    world.containers.pause(reference.clone()).await.unwrap();
    refused(world.containers.pause(reference).await, Code::FailedPrecondition, "is already paused");
    refused(world.remove("first", false).await, Code::FailedPrecondition, "is paused and must be unpaused first");
    world.remove("first", true).await.unwrap();
    world.daemon.finish().await;
}

/// A program that cannot be run leaves a container with its exit code, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails() {
    let mut world = World::new().await;
    for (program, code) in [("/no/such", 127), ("/etc", 126)] {
        let mut request = named("bad", "");
        request.config.as_mut().unwrap().command = vec![program.into()];
        world.create(request).await;
        let start = own::StartContainerRequest { container: "bad".into() };
        let refused = world.containers.start(start).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().starts_with(&format!("exit code {code}: ")), "{refused:?}");
        let state = world.state("bad").await;
        assert_eq!((state.status(), state.exit_code), (State::Created, code));
        world.remove("bad", false).await.unwrap();
    }
    world.daemon.finish().await;
}

/// Stop asks first; a frozen one hears it too; kill does not ask.
#[tokio::test(flavor = "multi_thread")]
async fn stop_pause_kill() {
    let mut world = World::new().await;
    world.run(named("web", &format!("{OBEDIENT} & echo up; wait; exit 7"))).await;
    world.run(named("asked", &format!("echo up; {OBEDIENT}"))).await;
    world.said("asked", "up").await;
    world.containers.pause(own::ContainerRef { container: "asked".into() }).await.unwrap();
    assert_eq!(world.state("asked").await.status(), State::Paused);
    world.crash().await;
    assert_eq!(world.state("asked").await.status(), State::Paused);
    world.stop("asked").await;
    let state = world.state("asked").await;
    assert_eq!((state.status(), state.exit_code), (State::Exited, 7));
    world.containers.pause(own::ContainerRef { container: "web".into() }).await.unwrap();
    world.containers.unpause(own::ContainerRef { container: "web".into() }).await.unwrap();
    let kill = own::KillContainerRequest { container: "web".into(), signal: String::new() };
    world.containers.kill(kill).await.unwrap();
    let state = world.state("web").await;
    assert_eq!((state.status(), state.exit_code), (State::Exited, 137));
    let restart = own::StopContainerRequest { container: "web".into(), timeout: Some(0), ..Default::default() };
    for _ in 0..2 {
        world.containers.restart(restart.clone()).await.unwrap();
        assert_eq!(world.state("web").await.status(), State::Running);
    }
    world.daemon.finish().await;
}

/// CRI shows nothing of them, by no call.
#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_sees_nothing() {
    let mut world = World::new().await;
    let id = world.run(named("mine", OBEDIENT)).await;
    let mut runtime = world.daemon.runtime().await;
    assert!(runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items.is_empty());
    let listed = runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap().into_inner();
    assert!(listed.containers.is_empty());
    let stats = runtime.list_container_stats(cri::ListContainerStatsRequest::default()).await.unwrap().into_inner();
    assert!(stats.stats.is_empty());
    let stats = runtime.list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await.unwrap().into_inner();
    assert!(stats.stats.is_empty());
    let metrics = runtime.list_pod_sandbox_metrics(cri::ListPodSandboxMetricsRequest::default()).await.unwrap().into_inner();
    assert!(metrics.pod_metrics.is_empty());
    for text in [id.as_str(), &id[..12]] {
        let status = cri::ContainerStatusRequest { container_id: text.into(), verbose: false };
        assert_eq!(runtime.container_status(status).await.unwrap_err().code(), Code::NotFound);
        // What is not there is stopped and removed already, and nothing happens to it.
        runtime.stop_container(cri::StopContainerRequest { container_id: text.into(), timeout: 0 }).await.unwrap();
        runtime.remove_container(cri::RemoveContainerRequest { container_id: text.into() }).await.unwrap();
        let exec = cri::ExecSyncRequest { container_id: text.into(), cmd: vec!["true".into()], timeout: 1 };
        assert_eq!(runtime.exec_sync(exec).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(world.state("mine").await.status(), State::Running);
    world.daemon.finish().await;
}

/// Streams from the first byte on, and the exit code last.
#[tokio::test(flavor = "multi_thread")]
async fn started_with_its_streams() {
    let mut world = World::new().await;
    let mut request = named("echo", "echo first; while read line; do echo got $line; done; exit 5");
    request.config.as_mut().unwrap().open_stdin = true;
    request.config.as_mut().unwrap().stdin_once = true;
    request.host.as_mut().unwrap().auto_remove = true;
    world.create(request).await;
    let start = own::AttachStart { container_id: "echo".into(), stdin: true };
    let say = |message| own::AttachRequest { message: Some(message) };
    let input = [
        say(ToAttached::Start(start)),
        say(ToAttached::Stdin(b"a\n".as_slice().into())),
        say(ToAttached::Stdin(b"b\n".as_slice().into())),
        say(ToAttached::StdinEnd(true)),
    ];
    let mut output = world.containers.start_attached(tokio_stream::iter(input)).await.unwrap().into_inner();
    let (mut text, mut code, mut began) = (Vec::new(), None, false);
    while let Some(message) = output.message().await.unwrap() {
        match message.message.unwrap() {
            FromProcess::Started(_) => began = text.is_empty(),
            FromProcess::Stdout(bytes) => text.extend(bytes),
            FromProcess::Stderr(bytes) => panic!("{bytes:?}"),
            FromProcess::ExitCode(exit) => code = Some(exit),
        }
    }
    assert_eq!((String::from_utf8(text).unwrap().as_str(), code, began), ("first\ngot a\ngot b\n", Some(5), true));
    // The daemon removes it.
    for _ in 0..3000 {
        if world.names(true).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.names(true).await, Vec::<String>::new());
    world.daemon.finish().await;
}

/// A followed log ends with the container.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed() {
    let mut world = World::new().await;
    world.run(named("talker", "for n in 1 2 3; do echo $n; sleep 0.1; done")).await;
    assert_eq!(world.logs("talker", |request| request.follow = true).await, "1\n2\n3\n");
    assert_eq!(world.logs("talker", |request| request.since = i64::MAX).await, "");
    world.daemon.finish().await;
}

/// Policies: by their own exits, through stops by hand, the death of the daemon, and a boot.
#[tokio::test(flavor = "multi_thread")]
async fn restart_policies() {
    let mut world = World::new().await;
    world.run(with_policy("limited", "exit 4", "on-failure", 2)).await;
    let state = world.until("limited", "two restarts", |s| s.status() == State::Exited && s.restart_count == 2).await;
    assert_eq!(state.exit_code, 4);
    world.run(with_policy("fine", "exit 0", "on-failure", 0)).await;
    assert_eq!(world.wait("fine", Condition::NotRunning).await, 0);
    assert_eq!(world.state("fine").await.restart_count, 0);

    // It lives through a killed daemon: nothing of it ends.
    let id = world.run(with_policy("steady", OBEDIENT, "unless-stopped", 0)).await;
    let before = world.state("steady").await;
    world.run(with_policy("crashing", "sleep 0.2; exit 1", "always", 0)).await;
    world.crash().await;
    let after = world.state(&id).await;
    assert_eq!((after.pid, after.started_at, after.status()), (before.pid, before.started_at, State::Running));
    let count = world.state("crashing").await.restart_count;
    world.until("crashing", "more restarts", |s| s.restart_count > count + 1).await;

    // Stopped by hand it stays so; only `always` starts with the engine.
    world.stop("steady").await;
    world.stop("crashing").await;
    assert_eq!(world.state("crashing").await.status(), State::Exited);
    world.crash().await;
    assert_eq!(world.state("steady").await.status(), State::Exited);
    world.until("crashing", "start with the engine", |s| s.started_at > 0 && s.restart_count > 0).await;
    world.remove("crashing", true).await.unwrap();
    world.daemon.finish().await;
}

/// The exit of a container that ended while no daemon was there is found, with its policy and `--rm`.
#[tokio::test(flavor = "multi_thread")]
async fn ends_that_nobody_saw() {
    let mut world = World::new().await;
    let flag = world.daemon.dir.path().join("flags");
    std::fs::create_dir(&flag).unwrap();
    let waiting = "while [ ! -e /flags/go ]; do sleep 0.05; done; exit 9";
    let bound = |name: &str| {
        let mut request = named(name, waiting);
        request.host.as_mut().unwrap().mounts = vec![own::Mount {
            kind: own::mount::Kind::Bind.into(),
            source: flag.display().to_string(),
            target: "/flags".into(),
            ..Default::default()
        }];
        request
    };
    let mut passing = bound("passing");
    passing.host.as_mut().unwrap().auto_remove = true;
    world.run(passing).await;
    world.run(bound("kept")).await;
    let pid = world.summary("kept").await.state.unwrap().pid;
    world.daemon.kill();
    std::fs::write(flag.join("go"), "").unwrap();
    for _ in 0..3000 {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        if stat.contains(") Z") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.come_back().await;
    let state = world.until("kept", "its end", |s| s.status() == State::Exited).await;
    assert_eq!(state.exit_code, 9);
    for _ in 0..3000 {
        if world.names(true).await == ["kept"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.names(true).await, ["kept"]);
    world.daemon.finish().await;
}

/// The daemon is killed in the middle of each step: nothing is half-visible, nothing is left, and it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle() {
    let mut world = World::new().await;
    for point in
        ["user.create", "user.record", "user.created", "user.start", "user.pod", "ctr.rootfs", "ctr.created", "user.started"]
    {
        world.daemon.terminate();
        world.daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        world.come_back().await;
        let begun = world.containers.create(named("xx", OBEDIENT)).await;
        if begun.is_ok() {
            world.containers.start(own::StartContainerRequest { container: "xx".into() }).await.unwrap_err();
        }
        world.daemon.wait_death();
        world.daemon.set_env("CREEL_FAILPOINTS", None);
        world.come_back().await;
        let names = world.names(true).await;
        match point {
            "user.create" | "user.record" => assert_eq!(names, Vec::<String>::new(), "{point}"),
            _ => assert_eq!(names, ["xx"], "{point}"),
        }
        if point == "user.started" {
            assert_eq!(world.state("xx").await.status(), State::Running);
        }
        if names.is_empty() {
            world.create(named("xx", OBEDIENT)).await;
        }
        world.start("xx").await;
        world.remove("xx", true).await.unwrap();
    }
    for point in ["user.stop", "user.exited", "user.remove", "user.removed"] {
        world.run(named("xx", OBEDIENT)).await;
        world.daemon.terminate();
        world.daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        world.come_back().await;
        world.remove("xx", true).await.ok();
        if point == "user.stop" || point == "user.exited" {
            let request = own::StopContainerRequest { container: "xx".into(), timeout: Some(30), ..Default::default() };
            world.containers.stop(request).await.ok();
        }
        world.daemon.wait_death();
        world.daemon.set_env("CREEL_FAILPOINTS", None);
        world.come_back().await;
        match point {
            "user.removed" => assert_eq!(world.names(true).await, Vec::<String>::new(), "{point}"),
            _ => world.remove("xx", true).await.unwrap(),
        }
    }
    world.daemon.finish().await;
}

/// Limits and policy change while it runs, and stay changed.
#[tokio::test(flavor = "multi_thread")]
async fn update() {
    let mut world = World::new().await;
    world.run(named("web", OBEDIENT)).await;
    let limits = own::Limits { memory: Some(64 << 20), pids: Some(50), ..Default::default() };
    let restart = Some(own::RestartPolicy { name: "on-failure".into(), maximum_retries: 3 });
    let request = own::UpdateContainerRequest { container: "web".into(), limits: Some(limits), restart };
    world.containers.update(request).await.unwrap();
    world.crash().await;
    let inspect = own::InspectContainerRequest { container: "web".into(), size: true };
    let details = world.containers.inspect(inspect).await.unwrap().into_inner();
    let host = details.host.unwrap();
    assert_eq!((host.limits.unwrap().memory, host.restart.unwrap().maximum_retries), (Some(64 << 20), 3));
    assert!(details.summary.unwrap().size_root > 0);
    world.daemon.finish().await;
}

/// Everything that happens is told, in order, with what is remembered first.
#[tokio::test(flavor = "multi_thread")]
async fn events() {
    let mut world = World::new().await;
    let mut system = SystemClient::new(world.daemon.channel().await.unwrap());
    let filter = |key: &str, value: &str| own::Filter { key: key.into(), value: value.into() };
    let request =
        own::EventsRequest { since: 1, until: 0, filters: vec![filter("container", "told"), filter("type", "container")] };
    let mut stream = system.events(request).await.unwrap().into_inner();
    let id = world.run(named("told", OBEDIENT)).await;
    world.containers.pause(own::ContainerRef { container: "told".into() }).await.unwrap();
    world.containers.unpause(own::ContainerRef { container: "told".into() }).await.unwrap();
    world.stop("told").await;
    world.remove("told", false).await.unwrap();
    let mut actions = Vec::new();
    while actions.last().is_none_or(|action| action != "destroy") {
        let event = tokio::time::timeout(Duration::from_secs(60), stream.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((event.id.as_str(), event.attributes["name"].as_str()), (id.as_str(), "told"));
        if event.action == "die" {
            assert_eq!(event.attributes["exitCode"], "7");
        }
        actions.push(event.action);
    }
    assert_eq!(actions, ["create", "start", "pause", "unpause", "kill", "die", "stop", "destroy"]);
    let request = own::EventsRequest { since: 1, until: 0, filters: vec![filter("event", "create"), filter("container", "told")] };
    let mut remembered = system.events(request).await.unwrap().into_inner();
    assert_eq!(remembered.message().await.unwrap().unwrap().action, "create");
    world.daemon.finish().await;
}

/// A container's image stays as long as the container does.
#[tokio::test(flavor = "multi_thread")]
async fn its_image_is_in_use() {
    let mut world = World::new().await;
    world.run(named("web", "true")).await;
    world.wait("web", Condition::NotRunning).await;
    let mut images = api::creel::images_client::ImagesClient::new(world.daemon.channel().await.unwrap());
    let id = world.summary("web").await.image_id;
    let remove = |image: &str, force| own::RemoveImageRequest { image: image.into(), force };
    refused(images.remove(remove(BUSYBOX, false)).await, Code::FailedPrecondition, "is using its referenced image");
    refused(images.remove(remove(&id, false)).await, Code::FailedPrecondition, "image is being used by stopped container");
    images.remove(remove(&id, true)).await.unwrap();
    // By force the image goes; its layers stay, and the container starts all the same, after a start of the daemon too.
    world.crash().await;
    world.start("web").await;
    assert_eq!(world.wait("web", Condition::NotRunning).await, 0);
    world.daemon.finish().await;
}

/// Clean-up takes what does not run.
#[tokio::test(flavor = "multi_thread")]
async fn prune() {
    let mut world = World::new().await;
    world.create(named("created", "true")).await;
    world.run(named("ended", "true")).await;
    world.wait("ended", Condition::NotRunning).await;
    world.run(named("running", OBEDIENT)).await;
    let pruned = world.containers.prune(own::PruneContainersRequest::default()).await.unwrap().into_inner();
    assert_eq!((pruned.ids.len(), world.names(true).await), (2, vec!["running".to_owned()]));
    world.daemon.finish().await;
}

/// What a person says of a container is so.
#[tokio::test(flavor = "multi_thread")]
async fn configuration() {
    let mut world = World::new().await;
    let mut request = named(
        "all",
        "id -u; id -g; hostname; pwd; echo $A; ulimit -n; df -m /mem | tail -n1 | tr -s ' ' | cut -d' ' -f2; ip link | grep -c UP",
    );
    let config = request.config.as_mut().unwrap();
    config.user = "1000:nobody".into();
    config.groups = vec!["daemon".into()];
    config.hostname = "own-name".into();
    config.working_dir = "/var".into();
    config.env = vec!["A=b".into()];
    let host = request.host.as_mut().unwrap();
    host.ulimits = vec![own::Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    host.init = true;
    host.mounts =
        vec![own::Mount { kind: own::mount::Kind::Tmpfs.into(), target: "/mem".into(), tmpfs_size: 3 << 20, ..Default::default() }];
    world.run(request).await;
    assert_eq!(world.wait("all", Condition::NotRunning).await, 0, "{}", world.logs("all", |_| {}).await);
    let log = world.logs("all", |_| {}).await;
    assert_eq!(log.lines().collect::<Vec<_>>(), ["1000", "65534", "own-name", "/var", "b", "100", "3", "1"]);
    for (flag, change) in [
        ("--userns", (|host: &mut own::HostConfig| host.userns = "keep-id".into()) as fn(&mut own::HostConfig)),
        ("unknown capability", |host| host.cap_add = vec!["FLY".into()]),
        ("--security-opt", |host| host.security_opt = vec!["what".into()]),
        ("Minimum memory limit", |host| host.limits = Some(own::Limits { memory: Some(1), ..Default::default() })),
    ] {
        let mut request = named("no", "true");
        change(request.host.as_mut().unwrap());
        let refused = world.containers.create(request).await.unwrap_err();
        assert!(refused.message().contains(flag), "{refused:?}");
    }
    world.daemon.finish().await;
}

/// After a boot of the machine: what has a policy runs again with its files, the rest has ended, and what was to go is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_reboot() {
    let mut world = World::new().await;
    let counting = format!("echo x >> /count; cat /count | wc -l; {OBEDIENT}");
    world.run(with_policy("again", &counting, "unless-stopped", 0)).await;
    world.said("again", "1").await;
    world.run(with_policy("failing", OBEDIENT, "on-failure", 5)).await;
    world.run(with_policy("stopped", OBEDIENT, "unless-stopped", 0)).await;
    world.stop("stopped").await;
    world.run(named("plain", OBEDIENT)).await;
    let mut passing = named("passing", OBEDIENT);
    passing.host.as_mut().unwrap().auto_remove = true;
    world.run(passing).await;
    world.create(with_policy("never-run", OBEDIENT, "always", 0)).await;
    world.daemon.kill();
    check::kill_everything(&world.daemon);
    check::unmount_shm(&world.daemon);
    std::fs::remove_dir_all(world.daemon.run_dir()).unwrap();
    world.come_back().await;
    for name in ["again", "failing"] {
        world.until(name, "start after the boot", |s| s.status() == State::Running && s.restart_count == 1).await;
    }
    world.said("again", "2").await;
    for (name, status) in [("stopped", State::Exited), ("plain", State::Exited), ("never-run", State::Created)] {
        assert_eq!(world.state(name).await.status(), status, "{name}");
    }
    assert!(!world.names(true).await.contains(&"passing".to_owned()));
    world.start("plain").await;
    world.daemon.finish().await;
}
