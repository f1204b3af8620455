//! What is remembered of builds that were asked for: a record per build on the disk, written when it begins and when it has ended,
//! and beside it what its steps have said. The youngest stay, and none for ever. Nothing in it is a value that a client has given:
//! of arguments there are only the names, of secrets and agents nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{BuildId, ErrorKind, pod::Timestamp};
use store::Store;

use super::{
    past::{PastBuild, PastOutput},
    refuse,
};
use crate::{
    Engine,
    blocking::blocking,
    clock,
    error::{About, Error, Step as _},
    record,
};

/// Builds that are remembered, beside those that run.
const MOST: usize = 100;
/// How long, in nanoseconds: thirty days.
const LONGEST: Timestamp = 30 * 24 * 3600 * 1_000_000_000;

/// All builds that are remembered.
#[derive(Debug)]
pub(crate) struct History {
    store: Arc<Store>,
    builds: Mutex<HashMap<BuildId, PastBuild>>,
}

impl History {
    /// None that is known: see [`History::load`].
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, builds: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, PastBuild>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there. A build that ran when the daemon ended has ended with it. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn load(&self) -> Result<(), store::Error> {
        let (found, damaged) = self.store.load_builds()?;
        for damaged in &damaged {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        for (id, bytes) in found {
            match minicbor::decode::<PastBuild>(&bytes) {
                Ok(mut build) => {
                    if build.ended.is_none() {
                        build.fails(false, "the daemon ended while it ran");
                        self.store.put_build(id, &record::encode(&build))?;
                    }
                    self.lock().insert(id, build);
                }
                Err(_) => self.store.remove_build(id)?,
            }
        }
        self.trim()
    }

    /// Remembers a build as it is now. Blocks.
    ///
    /// # Errors
    /// If the disk fails: then it is known until the daemon ends.
    pub(super) fn put(&self, build: PastBuild) -> Result<(), store::Error> {
        let (id, bytes) = (build.id, record::encode(&build));
        self.lock().insert(id, build);
        self.store.put_build(id, &bytes)?;
        self.trim()
    }

    /// What the steps of a build have said, which is remembered. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn put_transcript(&self, id: BuildId, said: &[PastOutput]) -> Result<(), store::Error> {
        self.store.put_transcript(id, &record::encode(&said))
    }

    /// Forgets the oldest of those that are too many, and those that are too old.
    fn trim(&self) -> Result<(), store::Error> {
        let oldest = clock::now() - LONGEST;
        let gone: Vec<BuildId> = {
            let mut builds = self.lock();
            let mut ended: Vec<_> = builds.values().filter_map(|build| Some((build.ended?, build.begun, build.id))).collect();
            ended.sort_unstable();
            let many = ended.len().saturating_sub(MOST);
            let gone = ended.into_iter().enumerate().filter(|(place, (at, ..))| *place < many || *at < oldest);
            gone.map(|(_, (.., id))| id).filter(|id| builds.remove(id).is_some()).collect()
        };
        gone.iter().try_for_each(|id| self.store.remove_build(*id))
    }

    /// All, the youngest first.
    fn all(&self) -> Vec<PastBuild> {
        let mut all: Vec<PastBuild> = self.lock().values().cloned().collect();
        all.sort_by_key(|build| std::cmp::Reverse((build.begun, build.id)));
        all
    }

    /// One, by its id or the beginning of it; `latest`, or nothing at all: the youngest; `^1`: the one before.
    fn find(&self, text: &str) -> Result<PastBuild, Error> {
        let back = match text {
            "" | "latest" => Some(0),
            text => text.strip_prefix('^').and_then(|number| number.parse::<usize>().ok()),
        };
        let none = |why: String| Err(refuse(ErrorKind::NotFound, why));
        if let Some(back) = back {
            return self.all().into_iter().nth(back).map_or_else(|| none("no such build: there are not so many".to_owned()), Ok);
        }
        let shown: String = text.chars().take(80).collect();
        let mut found: Vec<PastBuild> = self.all().into_iter().filter(|build| build.id.to_string().starts_with(text)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(build), true) => Ok(build),
            (Some(_), false) => Err(refuse(ErrorKind::InvalidArgument, format!("multiple builds begin with {shown}"))),
            (None, _) => none(format!("no such build: {shown}")),
        }
    }

    fn forget(&self, build: &PastBuild) -> Result<(), Error> {
        if build.ended.is_none() {
            return Err(refuse(ErrorKind::FailedPrecondition, format!("build {} is running", build.id.short())));
        }
        self.lock().remove(&build.id);
        self.store.remove_build(build.id).step(About::Words, "forget a build")
    }
}

impl Engine {
    /// All builds that are remembered and those that run, the youngest first.
    pub fn past_builds(&self) -> Vec<PastBuild> {
        self.inner().history.all()
    }

    /// One, by its id or the beginning of it; `latest`, or nothing at all: the youngest; `^1`: the one before.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`: there are several.
    pub fn past_build(&self, text: &str) -> Result<PastBuild, Error> {
        self.inner().history.find(text)
    }

    /// What the steps of a build have said; of one that runs nothing yet.
    ///
    /// # Errors
    /// The disk's.
    pub async fn said_by(&self, id: BuildId) -> Result<Vec<PastOutput>, Error> {
        let inner = self.inner().clone();
        let read = blocking(move || inner.store.transcript(id)).await.step(About::Words, "read what a build has said")?;
        Ok(read.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default())
    }

    /// Forgets builds; an empty list: all that have ended. Answers which.
    ///
    /// # Errors
    /// One that is not there, one that runs; the disk's. What was forgotten until then is.
    pub async fn forget_builds(&self, which: Vec<String>) -> Result<Vec<BuildId>, Error> {
        let inner = self.inner().clone();
        let forget = move || {
            let history = &inner.history;
            let builds = match which.as_slice() {
                [] => history.all().into_iter().filter(|build| build.ended.is_some()).collect(),
                some => some.iter().map(|text| history.find(text)).collect::<Result<Vec<_>, _>>()?,
            };
            builds.iter().map(|build| history.forget(build).map(|()| build.id)).collect()
        };
        blocking(forget).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Asked;

    fn history() -> (tempfile::TempDir, History) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path().join("store")).unwrap());
        (dir, History::new(store))
    }

    fn build(n: u8, begun: Timestamp, ended: Option<Timestamp>) -> PastBuild {
        let id = BuildId::from_bytes([n; 32]);
        let (asked, steps) = (Asked::default(), Vec::new());
        PastBuild { id, asked, begun, ended, failure: None, image: None, manifest: None, steps, more: 0 }
    }

    #[test]
    fn the_youngest_stay_and_none_for_ever() {
        let (_dir, history) = history();
        let now = clock::now();
        history.put(build(255, 1, Some(2))).unwrap();
        history.put(build(254, 1, None)).unwrap();
        for n in 0..=u8::try_from(MOST).unwrap() {
            history.put(build(n, now + i64::from(n), Some(now + i64::from(n)))).unwrap();
        }
        let again = History::new(history.store.clone());
        again.load().unwrap();
        for history in [history, again] {
            let all = history.all();
            assert!(all.iter().all(|build| ![BuildId::from_bytes([255; 32]), BuildId::from_bytes([0; 32])].contains(&build.id)));
            assert!(all.len() == MOST + 1 || all.len() == MOST, "{}", all.len());
            assert_eq!(all[0].id, history.find("latest").unwrap().id);
        }
    }

    #[test]
    fn what_ran_when_the_daemon_ended_has_ended() {
        let (_dir, history) = history();
        history.put(build(1, 5, None)).unwrap();
        assert_eq!((history.all()[0].status(), history.forget(&history.all()[0]).is_err()), ("Running", true));
        let again = History::new(history.store.clone());
        again.load().unwrap();
        let found = again.find(&"01".repeat(4)).unwrap();
        assert_eq!((found.status(), found.failure.as_ref().unwrap().message.as_str()), ("Error", "the daemon ended while it ran"));
        again.forget(&found).unwrap();
        assert!(again.find("latest").is_err() && again.store.load_builds().unwrap().0.is_empty());
    }

    #[test]
    fn builds_are_found_by_the_beginning_of_their_ids() {
        let (_dir, history) = history();
        let now = clock::now();
        for n in [0xa1, 0xa2] {
            history.put(build(n, now + i64::from(n), Some(now))).unwrap();
        }
        assert_eq!(history.find("a1").unwrap().id, history.find("^1").unwrap().id);
        for (text, part) in [("a", "multiple builds begin with a"), ("b", "no such build: b"), ("^2", "no such build")] {
            assert!(history.find(text).unwrap_err().chain().contains(part), "{text}");
        }
    }
}
