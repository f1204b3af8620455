//! Attach, detach, and daemons that come and go.

use super::*;

#[test]
fn ports_of_other_pods_are_refused_and_freed_with_them() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let sctp = [port(Protocol::Sctp, 8080, None), port(Protocol::Tcp, 8080, None)];
    let a = host.pod(1, &sctp);
    let error = host.try_pod(2, &[port(Protocol::Tcp, 8080, Some("192.0.2.1"))]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains(&a.id.to_string()), "{error}");
    host.pod(3, &[port(Protocol::Udp, 8080, None)]);
    host.detach(a.id);
    host.detach(a.id);
    host.pod(2, &sctp);
}

#[test]
fn a_new_daemon_takes_over_and_cleans_up() {
    if !Namespace::possible() {
        return;
    }
    let mut host = Host::new(config(&BOTH));
    let ports = [port(Protocol::Tcp, 8080, None)];
    let (a, b, lost) = (host.pod(1, &ports), host.pod(2, &[]), host.pod(3, &[port(Protocol::Tcp, 8081, None)]));
    a.serve(80, "a");
    let live = vec![(a.id, a.attached.record.clone()), (b.id, b.attached.record.clone()), (pod_id(9), b"nonsense".to_vec())];
    // The old daemon's sockets close.
    let namespace = host.namespace;
    drop(std::mem::replace(&mut host.bridge, namespace.run(|| Arc::new(Bridge::new(config(&BOTH)).unwrap()))));
    host.namespace = namespace;
    let found = host.with(move |bridge| bridge.recover(&live)).unwrap();
    assert_eq!(found.removed_interfaces.len(), 1, "{found:?}");
    assert_eq!((found.unplugged.len(), found.unreadable.len()), (0, 1), "{found:?}");
    assert!(ask_tcp(&b.namespace, SocketAddr::new(a.ip(false), 80)).is_some());
    assert!(ask_tcp(&host.namespace, "127.0.0.1:8080".parse().unwrap()).is_some());
    assert!(host.try_pod(4, &ports).is_err(), "ports are still taken");
    let c = host.pod(5, &[port(Protocol::Tcp, 8081, None)]);
    assert!(![a.ip(false), b.ip(false)].contains(&c.ip(false)));
    host.detach(lost.id);
    host.detach(a.id);
    // A pod whose namespace went away meanwhile.
    let gone = vec![(b.id, b.attached.record.clone())];
    drop(b);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let namespace = host.namespace.run(|| Arc::new(Bridge::new(config(&BOTH)).unwrap()));
        host.bridge = namespace;
        let gone = gone.clone();
        let found = host.with(move |bridge| bridge.recover(&gone)).unwrap();
        if found.unplugged == [gone_id()] {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}

fn gone_id() -> PodId {
    pod_id(2)
}

#[test]
fn addresses_run_out_and_come_back_only_with_the_interface_gone() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&["10.202.0.0/29"]));
    let mut pods: Vec<Pod> = (1..=5).map(|n| host.pod(n, &[])).collect();
    let error = host.try_pod(9, &[]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.to_string().contains("10.202.0.0/29"), "{error}");
    let last = pods.remove(4);
    host.detach(last.id);
    assert!(host.try_pod(9, &[]).is_err(), "the old interface still lives");
    let address = last.attached.ip;
    drop(last);
    let deadline = Instant::now() + PATIENCE;
    let again = loop {
        match host.try_pod(9, &[]) {
            Ok(pod) => break pod,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(again.attached.ip, address);
}

#[test]
fn f_30_a_failed_attach_leaves_nothing() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let ports = [port(Protocol::Tcp, 8080, None)];
    let missing = host.with(|bridge| attach(bridge, pod_id(1), "/nowhere/net".into(), &[])).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let file = host.with(|bridge| attach(bridge, pod_id(1), "/proc/self/status".into(), &[])).unwrap_err();
    assert!(crate::error::chain(&file).contains("veth"), "{file}");
    let taken = host.pod(2, &[]);
    let path = taken.namespace.path().to_owned();
    let error = host.with(move |bridge| attach(bridge, pod_id(1), path, &ports)).unwrap_err();
    assert!(crate::error::chain(&error).contains("eth0"), "{error}");
    let links = host.namespace.run(|| Links::open().unwrap().list().unwrap());
    assert_eq!(links.iter().filter(|link| link.kind == "veth").count(), 1, "{links:?}");
    let pod = host.pod(1, &[port(Protocol::Tcp, 8080, None)]);
    let path = pod.namespace.path().to_owned();
    let twice = host.with(move |bridge| attach(bridge, pod_id(1), path, &[])).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    host.detach(pod_id(77));
}

#[test]
fn f_33_names_and_subnets_of_others_are_respected() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&["192.0.2.0/24"]));
    let _outside = host.neighbour();
    let Status::NotReady { message, .. } = host.with(Bridge::status) else { panic!("ready") };
    assert!(message.contains("192.0.2.0/24") && message.contains("uplink"), "{message}");
    let host = Host::new(BridgeConfig { bridge: "uplink".into(), ..config(&BOTH) });
    let _outside = host.neighbour();
    let Status::NotReady { message, .. } = host.with(Bridge::status) else { panic!("ready") };
    assert!(message.contains("uplink exists"), "{message}");
}

#[test]
fn the_clusters_pod_cidr_is_taken_over() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    let old = host.pod(1, &[]);
    assert!(host.with(|bridge| bridge.set_pod_cidr("10.203.1.0/24,x")).is_err());
    host.with(|bridge| bridge.set_pod_cidr("")).unwrap();
    host.with(|bridge| bridge.set_pod_cidr("10.203.1.0/24")).unwrap();
    let new = host.pod(2, &[]);
    assert_eq!((new.attached.ip, new.attached.additional.len()), (ip("10.203.1.2"), 0));
    old.serve(80, "old");
    new.serve(80, "new");
    assert!(ask_tcp(&new.namespace, SocketAddr::new(old.ip(false), 80)).is_some());
    assert!(ask_tcp(&old.namespace, SocketAddr::new(new.ip(false), 80)).is_some());
    let fixed = Host::new(BridgeConfig { subnets: Subnets::Fixed(vec!["10.204.0.0/24".parse().unwrap()]), ..config(&BOTH) });
    fixed.with(|bridge| bridge.set_pod_cidr("10.203.1.0/24")).unwrap();
    assert_eq!(fixed.pod(1, &[]).attached.ip, ip("10.204.0.2"));
}

#[test]
fn many_pods_at_once_and_how_long_it_takes() {
    if !Namespace::possible() {
        return;
    }
    let host = Host::new(config(&BOTH));
    host.pod(1000, &[]);
    let namespaces: Vec<Namespace> = (0..300).map(|_| Namespace::new()).collect();
    let paths: Vec<PathBuf> = namespaces.iter().map(|n| n.path().to_owned()).collect();
    let (first, rest) = paths.split_at(100);
    let (first, rest) = (first.to_vec(), rest.to_vec());
    let attached = host.with(move |bridge| {
        let mut took = Vec::new();
        let mut attached = Vec::new();
        let mut one = |number: usize, path: &PathBuf| {
            let begin = Instant::now();
            attached.push(attach(bridge, pod_id(number as u16), path.clone(), &[]).unwrap());
            took.push(begin.elapsed());
        };
        rest.iter().zip(100..).for_each(|(path, number)| one(number, path));
        let median = |part: &[Duration]| {
            let mut sorted = part.to_vec();
            sorted.sort();
            sorted[part.len() / 2]
        };
        eprintln!("attach, one after the other: first 50 {:?}, last 50 {:?}", median(&took[..50]), median(&took[150..]));
        let begin = Instant::now();
        thread::scope(|scope| {
            let workers: Vec<_> = first
                .chunks(25)
                .enumerate()
                .map(|(worker, paths)| {
                    scope.spawn(move || {
                        let number = |i| (worker * 25 + i) as u16;
                        paths
                            .iter()
                            .enumerate()
                            .map(|(i, p)| attach(bridge, pod_id(number(i)), p.clone(), &[]).unwrap())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().for_each(|worker| attached.extend(worker.join().unwrap()));
        });
        eprintln!("100 more by four threads: {:?}", begin.elapsed());
        let begin = Instant::now();
        assert!(!bridge.heal().unwrap());
        eprintln!("heal of 300, nothing to do: {:?}", begin.elapsed());
        let begin = Instant::now();
        bridge.lock().rebuild(&bridge.config).unwrap();
        eprintln!("rebuild of 300: {:?}", begin.elapsed());
        let begin = Instant::now();
        (0..300).for_each(|number| bridge.detach(pod_id(number)).unwrap());
        eprintln!("300 detaches: {:?}", begin.elapsed());
        attached
    });
    let distinct: std::collections::HashSet<IpAddr> =
        attached.iter().flat_map(|a| std::iter::once(a.ip).chain(a.additional.clone())).collect();
    assert_eq!(distinct.len(), 600);
}

#[test]
fn without_ipv6_pods_get_ipv4_alone() {
    if !Namespace::possible() {
        return;
    }
    let namespace = Namespace::new();
    let bridge = namespace.run(|| {
        for which in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
        }
        assert!(Bridge::new(config(&BOTH[1..])).is_err(), "nothing would be left");
        Arc::new(Bridge::new(config(&BOTH)).unwrap())
    });
    let host = Host { namespace, bridge };
    let (a, b) = (host.pod(1, &[port(Protocol::Tcp, 8080, None)]), host.pod(2, &[]));
    assert_eq!(a.attached.additional, [] as [IpAddr; 0]);
    a.serve(80, "a");
    assert!(ask_tcp(&b.namespace, SocketAddr::new(a.ip(false), 80)).is_some());
    assert_eq!(host.with(Bridge::status), Status::Ready);
}
