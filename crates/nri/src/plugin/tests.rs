//! Both ends talk to each other.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{Stub, proto as p};

fn options() -> Options {
    Options {
        runtime: "creel".into(),
        version: "1".into(),
        registration_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
    }
}

fn hasty() -> Options {
    Options { registration_timeout: Duration::from_millis(500), request_timeout: Duration::from_millis(500), ..options() }
}

/// A plugin that registers, subscribes to everything and answers by `answer` from then on.
async fn connected<F, A>(options: Options, answer: F) -> (Plugin, Requests)
where
    F: Fn(crate::Called) -> A + Send + 'static,
    A: Future<Output = ()> + Send,
{
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let mut stub = Stub::new(theirs);
        stub.register("00", "test").await.unwrap();
        while let Some(called) = stub.next().await {
            if called.method == "Configure" {
                assert_eq!(called.request::<p::ConfigureRequest>().unwrap().runtime_name, "creel");
                called.answer(&p::ConfigureResponse { events: 0 }).await;
            } else {
                answer(called).await;
            }
        }
    });
    Plugin::connect(ours, Origin::External, options).await.unwrap()
}

fn pod(name: &str) -> PodSandbox {
    PodSandbox { id: name.into(), name: name.into(), ..Default::default() }
}

fn run(name: &str) -> p::RunPodSandboxRequest {
    p::RunPodSandboxRequest { pod: Some(pod(name)) }
}

#[tokio::test]
async fn a_call_and_its_answer_refused_or_not() {
    let (plugin, _requests) = connected(options(), |called| async move {
        match called.request::<p::RunPodSandboxRequest>().unwrap().pod.unwrap().name.as_str() {
            "bad" => called.refuse("no").await,
            _ => called.answer(&p::RunPodSandboxResponse {}).await,
        }
    })
    .await;
    assert_eq!(plugin.id(), "00-test");
    plugin.call(&run("good")).await.unwrap();
    let refused = plugin.call(&run("bad")).await.unwrap_err();
    assert_eq!(refused.to_string(), "NRI plugin 00-test refused RunPodSandbox: no");
    assert!(!refused.is_fatal() && !plugin.is_closed());
    plugin.call(&run("good")).await.unwrap();
}

#[tokio::test]
async fn a_plugin_of_before_is_told_by_state_change() {
    let (plugin, _requests) = connected(options(), |called| async move {
        match called.method.as_str() {
            "StateChange" => {
                let event: p::StateChangeEvent = called.request().unwrap();
                assert_eq!((event.event(), event.pod.unwrap().name.as_str()), (Event::RunPodSandbox, "x"));
                called.answer(&p::Empty {}).await;
            }
            _ => called.unimplemented().await,
        }
    })
    .await;
    for _ in 0..2 {
        plugin.call(&run("x")).await.unwrap();
    }
    plugin.call(&p::CreateContainerRequest::default()).await.unwrap();
}

#[tokio::test]
async fn one_that_takes_too_long_is_cut_off() {
    let (plugin, _requests) = connected(hasty(), |called| async move { std::mem::forget(called) }).await;
    let late = plugin.call(&run("x")).await.unwrap_err();
    assert_eq!(late.to_string(), "NRI plugin 00-test: no answer to RunPodSandbox within 500ms");
    assert!(late.is_fatal() && plugin.is_closed());
    assert!(matches!(plugin.call(&run("x")).await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn one_that_answers_nonsense_is_cut_off() {
    let (plugin, _requests) = connected(options(), |called| async move {
        // A pod where a response has no field of this type: field 1 as a number.
        called.answer(&p::OptionalInt64 { value: 5 }).await;
    })
    .await;
    assert!(matches!(plugin.call(&p::UpdateContainerRequest::default()).await, Err(Error::Answer { .. })));
    assert!(plugin.is_closed());
}

#[tokio::test]
async fn a_large_state_is_split_and_echoed() {
    let answer = |called: crate::Called| async move {
        let request: SynchronizeRequest = called.request().unwrap();
        assert!(request.encoded_len() <= MAX_MESSAGE);
        let update = if request.more { Vec::new() } else { vec![ContainerUpdate::default()] };
        called.answer(&p::SynchronizeResponse { update, more: request.more }).await;
    };
    let (plugin, _requests) = connected(options(), answer).await;
    let annotations = |i: usize| [("k".to_owned(), "v".repeat(100_000 + i))].into();
    let pods = (0..60).map(|i| PodSandbox { annotations: annotations(i), ..pod("p") }).collect();
    let containers = (0..60).map(|i| Container { annotations: annotations(i), ..Default::default() }).collect();
    assert_eq!(plugin.synchronize(pods, containers).await.unwrap().len(), 1);
    assert_eq!(plugin.synchronize(Vec::new(), Vec::new()).await.unwrap().len(), 1, "also of nothing");
}

#[test]
fn nothing_is_lost_when_a_state_is_split() {
    let annotations = |i: usize| [("k".to_owned(), "v".repeat(i * 10_000))].into();
    let pods: Vec<_> = (0..200).map(|i| PodSandbox { annotations: annotations(i % 7), ..pod(&i.to_string()) }).collect();
    let containers: Vec<_> = (0..400).map(|i| Container { annotations: annotations(i % 9), ..Default::default() }).collect();
    let parts: Vec<_> = split(pods.clone(), containers.clone()).collect();
    assert!(parts.len() > 1);
    assert_eq!(parts.iter().flat_map(|part| part.pods.clone()).collect::<Vec<_>>(), pods);
    assert_eq!(parts.iter().flat_map(|part| part.containers.clone()).collect::<Vec<_>>(), containers);
    assert_eq!(split(Vec::new(), Vec::new()).count(), 1);
}

#[tokio::test]
async fn one_that_does_not_understand_split_messages_is_cut_off() {
    let (plugin, _requests) =
        connected(options(), |called| async move { called.answer(&p::SynchronizeResponse::default()).await }).await;
    let pods = (0..60).map(|_| PodSandbox { annotations: [("k".to_owned(), "v".repeat(100_000))].into(), ..pod("p") }).collect();
    assert!(matches!(plugin.synchronize(pods, Vec::new()).await, Err(Error::Split { .. })));
    assert!(plugin.is_closed());
}

#[tokio::test]
async fn what_is_no_plugin_is_sent_away() {
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "channel 1195725856 does not exist"),
        (&[0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0], "an answer on the channel for requests"),
        (&[0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0], "an answer to call 1, which does not wait for one"),
        (&[0, 0, 0, 2, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0xff], "a request that cannot be decoded"),
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).await.unwrap();
        let error = Plugin::connect(ours, Origin::External, options()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(theirs.read(&mut [0; 64]).await.unwrap_or_default(), 0, "the connection is closed");
    }
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Plugin::connect(ours, Origin::External, hasty()).await.unwrap_err();
    assert_eq!(error.to_string(), "a plugin did not register: nothing within 500ms");
}

#[tokio::test]
async fn names_are_checked() {
    for (index, name, why) in
        [("0", "x", "two digits"), ("aa", "x", "two digits"), ("00", "", "1 to 128"), ("00", "a/b", "1 to 128")]
    {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut stub = Stub::new(theirs);
        let (refused, registered) = tokio::join!(stub.register(index, name), Plugin::connect(ours, Origin::External, options()));
        assert!(refused.unwrap_err().to_string().contains(why));
        assert!(registered.unwrap_err().to_string().contains(why));
    }
}

#[tokio::test]
async fn a_plugin_asks_by_itself() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let runtime = tokio::spawn(async move {
        let (_plugin, mut requests) = Plugin::connect(ours, Origin::External, options()).await.unwrap();
        let request = requests.next().await.unwrap();
        let failed = request.request.update.clone();
        request.answer(failed).await;
        assert!(requests.next().await.is_none());
    });
    let mut stub = Stub::new(theirs);
    stub.register("10", "a").await.unwrap();
    stub.next().await.unwrap().answer(&p::ConfigureResponse { events: 1 }).await;
    let update = vec![ContainerUpdate { container_id: "c".into(), ..Default::default() }];
    let answer = stub.update_containers(&UpdateContainersRequest { update: update.clone(), evict: Vec::new() }).await.unwrap();
    assert_eq!(answer.failed, update);
    drop(stub);
    runtime.await.unwrap();
}
