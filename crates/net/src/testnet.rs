//! Network namespaces for tests: threads that live in one and carry out what they are given.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use model::{PodId, pod::PodKey};
use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of its own; gone when dropped.
pub(crate) struct Namespace {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        Self { path: told.recv().unwrap().into(), jobs: Some(jobs), thread: Some(thread) }
    }

    /// Whether namespaces can be made here; says so if not.
    pub(crate) fn possible() -> bool {
        let possible =
            nix::unistd::geteuid().is_root() && thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false);
        if !possible {
            eprintln!("skipped: no right to make network namespaces");
        }
        possible
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs something in the namespace and waits for it. Threads that it starts and sockets that it opens stay there.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = Box::new(move || tell.send(job()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the job does not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ended = self.thread.take().unwrap().join();
    }
}

pub(crate) fn pod_id(number: u16) -> PodId {
    let mut bytes = [0x5a; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PodId::from_bytes(bytes)
}

pub(crate) fn key(name: &str) -> PodKey {
    PodKey { namespace: "default".into(), name: name.into(), uid: "uid".into(), attempt: 0 }
}
