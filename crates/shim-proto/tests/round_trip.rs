//! Whatever is sent comes out the same.
#![forbid(unsafe_code)]

mod samples;

use model::{
    ContainerId, Signal,
    container::{ExitStatus, OomScope},
    plan::ProcessPlan,
};
use proptest::{collection::vec, option, prelude::*};
use shim_proto::{ContainerEntry, Event, Exit, ExitRecord, Incoming, Reply, Request, State, Status};

fn exit() -> impl Strategy<Value = ExitStatus> {
    let scope =
        option::of(prop_oneof![Just(OomScope::Container), Just(OomScope::Pod), Just(OomScope::Above), Just(OomScope::Node)]);
    let parts = (any::<i32>(), option::of(1..=64), any::<bool>(), scope, any::<Option<u64>>());
    parts.prop_map(|(code, signal, oom_killed, oom_scope, oom_limit)| ExitStatus {
        code,
        signal: signal.and_then(Signal::from_number),
        oom_killed,
        oom_scope,
        oom_limit,
    })
}

fn record() -> impl Strategy<Value = ExitRecord> {
    (any::<[u8; 32]>(), any::<u32>(), any::<Option<i64>>(), any::<i64>(), exit(), any::<u64>()).prop_map(
        |(id, pid, started_at, finished_at, exit, lost_log_bytes)| ExitRecord {
            container: ContainerId::from_bytes(id),
            pid,
            started_at,
            finished_at,
            exit,
            lost_log_bytes,
        },
    )
}

fn process() -> impl Strategy<Value = ProcessPlan> {
    (vec(".*", 0..5), vec(vec(any::<u8>(), 0..40), 0..5), ".*", any::<[u32; 2]>(), vec(any::<u32>(), 0..4), any::<Option<i32>>())
        .prop_map(|(args, env, cwd, [uid, gid], groups, oom_score_adj)| ProcessPlan {
            args,
            env: env.into_iter().map(Into::into).collect(),
            cwd,
            uid,
            gid,
            groups,
            oom_score_adj,
            ..samples::process()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn requests(number in 1_u64.., process in process(), log_path in any::<Option<String>>()) {
        let mut plan = samples::container_plan();
        plan.process = process;
        plan.log_path = log_path;
        let request = Request::Create(plan);
        let bytes = shim_proto::encode_request(number, &request);
        prop_assert_eq!(shim_proto::decode_request(&bytes).unwrap(), (number, request));
    }

    #[test]
    fn replies(number in 1_u64.., records in vec((record(), any::<u64>()), 0..5)) {
        let containers = records.iter().map(|(record, _)| ContainerEntry {
            container: record.container,
            pid: record.pid,
            status: Status::Exited { started_at: record.started_at, finished_at: record.finished_at, exit: record.exit },
            lost_log_bytes: record.lost_log_bytes,
        });
        let containers = containers.collect();
        let exits = records.iter().map(|(record, sequence)| Exit::Container { sequence: *sequence, record: record.clone() });
        let reply = Reply::State(State { containers, exits: exits.collect(), ..State::default() });
        let bytes = shim_proto::encode_reply(number, &reply);
        prop_assert_eq!(shim_proto::decode_incoming(&bytes).unwrap(), Incoming::Reply { number, reply });
    }

    #[test]
    fn events_and_records(record in record(), sequence in any::<u64>()) {
        prop_assert_eq!(&ExitRecord::from_bytes(&record.to_bytes()).unwrap(), &record);
        let event = Event::Exited(Exit::Container { sequence, record });
        let bytes = shim_proto::encode_event(&event);
        prop_assert_eq!(shim_proto::decode_incoming(&bytes).unwrap(), Incoming::Event(event));
    }
}
