//! The thread that does what nobody waits for: emptying the trash and freeing layers whose last pin went.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use model::DiffId;

use crate::{remove, store::Shared};

#[derive(Debug)]
enum Job {
    /// Delete this entry of the trash.
    Delete(PathBuf),
    /// Free these layers if nobody needs them.
    Collect(Vec<DiffId>),
    /// Say so when everything before is done.
    Settle(Sender<()>),
}

/// Gives the sweeper work. What it has not begun when the store is closed is left for the next start.
#[derive(Clone, Debug)]
pub(crate) struct Broom {
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
}

impl Broom {
    pub(crate) fn delete(&self, path: PathBuf) {
        self.send(Job::Delete(path));
    }

    pub(crate) fn collect(&self, layers: Vec<DiffId>) {
        self.send(Job::Collect(layers));
    }

    /// Waits until all work given so far is done.
    pub(crate) fn settle(&self) {
        let (done, wait) = channel();
        self.send(Job::Settle(done));
        // An error says that the sweeper has ended, so there is nothing to wait for.
        wait.recv().ok();
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            jobs.send(job).ok();
        }
    }

    /// No more work is taken or begun.
    pub(crate) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_closed(&self) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Work that was given before the thread runs.
#[derive(Debug)]
pub(crate) struct Waiting(Receiver<Job>);

pub(crate) fn broom() -> (Broom, Waiting) {
    let (jobs, waiting) = channel();
    (Broom { jobs: Arc::new(Mutex::new(Some(jobs))) }, Waiting(waiting))
}

impl Waiting {
    pub(crate) fn run(self, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("store-sweeper".to_owned()).spawn(move || {
            for job in self.0 {
                // The daemon is on its way out and nobody shall wait for it; the next start finds the trash.
                if shared.broom.is_closed() {
                    return;
                }
                match job {
                    // What cannot be deleted stays in the trash and is tried again at the next start.
                    Job::Delete(path) => drop(remove::delete(&path, &shared.layout)),
                    // What cannot be freed now is garbage for the next collection.
                    Job::Collect(layers) => drop(shared.free_layers(&layers)),
                    Job::Settle(done) => drop(done.send(())),
                }
            }
        })
    }
}
