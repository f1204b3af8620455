//! The executor against the real kernel. Each test runs in a process of its own, forked from this one, and is there what
//! a supervisor is: alone, and in the namespaces of its pod.
#![allow(clippy::print_stdout, reason = "this is the test harness")]
#![allow(unreachable_pub, reason = "a test is no library")]

mod hostile;
mod identity;
mod isolation;
mod lifecycle;
mod mounts;
mod userns;
mod world;

use std::time::{Duration, Instant};

use sys::{
    ns::New,
    process::{self, Exit, Fork},
};

/// One test.
pub type Test = (&'static str, fn());

const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    // Of libtest's options only a filter means something here.
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let all = [hostile::TESTS, identity::TESTS, isolation::TESTS, lifecycle::TESTS, mounts::TESTS, userns::TESTS].concat();
    let chosen = all.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())));
    let mut failed = Vec::new();
    for (name, test) in chosen {
        let start = Instant::now();
        let exit = run(*test);
        let verdict = if exit == Some(Exit::Code(0)) { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({} ms)", start.elapsed().as_millis());
        if verdict != "ok" {
            failed.push(*name);
        }
    }
    println!("\ntest result: {} failed {failed:?}", failed.len());
    process::exit_now(i32::from(!failed.is_empty()));
}

fn run(test: fn()) -> Option<Exit> {
    match process::fork(New::empty(), None).expect("fork") {
        Fork::Child => {
            let outcome = std::panic::catch_unwind(test);
            process::exit_now(i32::from(outcome.is_err()));
        }
        Fork::Parent(child) => {
            let exit = process::wait(&child, LIMIT).ok();
            if exit.is_none() {
                let _ = process::signal(&child, model::Signal::KILL);
                let _ = process::wait(&child, LIMIT);
            }
            exit
        }
    }
}
