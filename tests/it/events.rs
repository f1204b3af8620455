//! GetContainerEvents: complete and in order while much happens, bounded for those who do not read, and no obstacle to an
//! end of the daemon.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use api::runtime::{self as cri, ContainerEventType as Type};
use tonic::{Code, Status, Streaming};

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

type Events = Streaming<cri::ContainerEventResponse>;

async fn subscribe(daemon: &Daemon) -> Events {
    daemon.runtime().await.get_container_events(cri::GetEventsRequest {}).await.expect("subscribe").into_inner()
}

/// Reads until the pod is removed.
async fn until_removed(mut events: Events, pod: String) -> Vec<cri::ContainerEventResponse> {
    let mut all = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(120), events.message()).await.expect("an event in time");
        let event = next.expect("no error").expect("no end");
        let last = event.container_id == pod && event.container_event_type() == Type::ContainerDeletedEvent;
        all.push(event);
        if last {
            return all;
        }
    }
}

/// Makes, starts, ends and removes `count` containers, some at a time.
async fn churn(runtime: &Runtime, pod: &str, config: &cri::PodSandboxConfig, count: usize) -> HashSet<String> {
    let mut made = HashSet::new();
    for round in (0..count).collect::<Vec<_>>().chunks(10) {
        let lives = round.iter().map(|number| {
            let (mut runtime, config) = (runtime.clone(), config.clone());
            async move {
                let container = pods::container(&format!("c{number}"), BUSYBOX, "true");
                let id = pods::run(&mut runtime, pod, &config, &container).await;
                pods::wait_exit(&mut runtime, &id).await;
                runtime.remove_container(cri::RemoveContainerRequest { container_id: id.clone() }).await.unwrap();
                id
            }
        });
        made.extend(futures_util::future::join_all(lives).await);
    }
    made
}

fn check(events: &[cri::ContainerEventResponse], pod: &str, containers: &HashSet<String>) {
    assert!(events.windows(2).all(|pair| pair[0].created_at < pair[1].created_at), "times grow");
    let mut lives: HashMap<&str, Vec<Type>> = HashMap::new();
    for event in events {
        lives.entry(&event.container_id).or_default().push(event.container_event_type());
        let status = event.pod_sandbox_status.as_ref().expect("every event has its pod");
        assert_eq!((status.id.as_str(), status.metadata.is_some()), (pod, true));
        let own = event.containers_statuses.iter().find(|status| status.id == event.container_id);
        match event.container_event_type() {
            _ if event.container_id == pod => {}
            Type::ContainerDeletedEvent => assert!(own.is_none(), "gone is gone"),
            // It may be gone by now; never is its status older than the event.
            Type::ContainerStoppedEvent => {
                assert!(own.is_none_or(|status| status.state() == cri::ContainerState::ContainerExited), "{own:?}");
            }
            Type::ContainerStartedEvent => {
                assert!(own.is_none_or(|status| status.state() != cri::ContainerState::ContainerCreated), "{own:?}");
            }
            Type::ContainerCreatedEvent => {}
        }
    }
    let whole =
        [Type::ContainerCreatedEvent, Type::ContainerStartedEvent, Type::ContainerStoppedEvent, Type::ContainerDeletedEvent];
    for container in containers {
        assert_eq!(lives.get(container.as_str()).map(Vec::as_slice), Some(&whole[..]), "{container}");
    }
    assert_eq!(lives.get(pod).map(Vec::as_slice), Some(&whole[..]), "the pod");
    assert_eq!(lives.len(), containers.len() + 1, "and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_subscribers_hear_everything_in_order() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let (mut early, slow) = (Vec::new(), subscribe(&daemon).await);
    for _ in 0..3 {
        early.push(subscribe(&daemon).await);
    }
    let config = pods::host_pod("churn");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let readers: Vec<_> = early.into_iter().map(|events| tokio::spawn(until_removed(events, pod.clone()))).collect();
    let containers = churn(&runtime, &pod, &config, 60).await;
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    let mut heard = Vec::new();
    for reader in readers {
        heard.push(reader.await.unwrap());
    }
    heard.iter().for_each(|events| check(events, &pod, &containers));
    // Who comes to it only now finds it all the same, as long as it has not fallen too far behind.
    check(&until_removed(slow, pod.clone()).await, &pod, &containers);
    let ids =
        |events: &[cri::ContainerEventResponse]| events.iter().map(|e| (e.container_id.clone(), e.created_at)).collect::<Vec<_>>();
    assert!(heard.windows(2).all(|two| ids(&two[0]) == ids(&two[1])), "one order for all");
    daemon.finish().await;
}

/// Reads until the stream ends; says how many events came and how it ended.
async fn to_the_end(mut events: Events) -> (usize, Option<Status>) {
    let mut count = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(60), events.message()).await.expect("an end in time") {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, None),
            Err(status) => return (count, Some(status)),
        }
    }
}

/// Who does not read costs the daemon nothing but its share of the queue, and has lost nothing as long as that is not full.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_finds_everything_and_then_the_end() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod("slow");
    // Every event carries the pod, so that a few fill what the connection buffers; the rest waits in the daemon.
    config.annotations.insert("filler".into(), "x".repeat(60_000));
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let events = subscribe(&daemon).await;
    let made = churn(&runtime, &pod, &config, 20).await;
    let reader = tokio::spawn(to_the_end(events));
    // Two of the pod and four of each container.
    let whole = 2 + 4 * made.len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.terminate();
    let (count, end) = reader.await.unwrap();
    assert_eq!((count, end.map(|status| status.code())), (whole - 2, Some(Code::Unavailable)), "subscribed after the pod was made");
    daemon.finish().await;
}

/// Events that the daemon keeps for who does not read.
const BACKLOG: usize = 4096;

/// Who does not read while more happens than the daemon keeps hears that something is lost, how much, and nothing after it;
/// whoever reads, and whoever asks again, misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_said() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod("flood");
    // A hundred events fill what the connection buffers.
    config.annotations.insert("filler".into(), "x".repeat(5_000));
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let (mut lazy, mut eager) = (subscribe(&daemon).await, subscribe(&daemon).await);
    let reader = tokio::spawn(async move {
        let mut heard = 0;
        // What the connection buffers comes on top.
        while heard < BACKLOG + 256 {
            let next = tokio::time::timeout(Duration::from_secs(120), eager.message()).await.expect("an event in time");
            next.expect("nothing is lost to who reads").expect("no end");
            heard += 1;
        }
    });
    // Each makes at least two events: created and deleted.
    let floods = (0..4).map(|flood| {
        let (mut runtime, config, pod) = (runtime.clone(), config.clone(), pod.clone());
        async move {
            for round in 0..(BACKLOG + 256).div_ceil(8) {
                let container = pods::container(&format!("c{flood}-{round}"), BUSYBOX, "true");
                let id = pods::create(&mut runtime, &pod, &config, &container).await.expect("create");
                runtime.remove_container(cri::RemoveContainerRequest { container_id: id }).await.expect("remove");
            }
        }
    });
    futures_util::future::join_all(floods).await;
    reader.await.unwrap();

    let (mut heard, mut last) = (0, 0);
    let end = loop {
        match tokio::time::timeout(Duration::from_secs(60), lazy.message()).await.expect("an end in time") {
            Ok(Some(event)) => {
                assert!(event.created_at > last, "in order until then");
                (heard, last) = (heard + 1, event.created_at);
            }
            Ok(None) => panic!("ended without saying that events are lost, after {heard}"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::DataLoss, "after {heard}: {end}");
    assert!(end.message().contains("events are lost: list again"), "{end}");
    assert!(matches!(lazy.message().await, Ok(None) | Err(_)), "nothing may follow what is missing");
    let mut again = subscribe(&daemon).await;
    pods::create(&mut runtime, &pod, &config, &pods::container("after", BUSYBOX, "true")).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(60), again.message()).await.expect("an event in time");
    assert_eq!(next.unwrap().unwrap().container_event_type(), Type::ContainerCreatedEvent);
    daemon.finish().await;
}

/// An open stream holds nothing up, and its end says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_ends_its_streams() {
    let mut daemon = Daemon::start().await;
    let readers: Vec<_> =
        [subscribe(&daemon).await, subscribe(&daemon).await].map(|events| tokio::spawn(to_the_end(events))).into();
    let begun = Instant::now();
    daemon.terminate();
    // Not a timing of anything but the ten seconds that requests in flight are given.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    for reader in readers {
        let (count, end) = reader.await.unwrap();
        let end = end.expect("an error, not a silent end");
        assert_eq!((count, end.code()), (0, Code::Unavailable), "{end}");
        assert!(end.message().contains("list"), "{end}");
    }
    daemon.finish().await;
}
