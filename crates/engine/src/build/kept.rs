//! What builds leave to be used again, whoever keeps it: shown together, limited together, freed together.

use model::pod::Timestamp;

use crate::{
    Engine, Inner,
    blocking::blocking,
    error::{About, Error, Step as _},
};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptKind {
    /// What a step has made.
    Step,
    /// What files are copied from.
    Context,
    /// RUN --mount=type=cache.
    Mount,
}

impl KeptKind {
    /// As docker calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::Context => "source.local",
            Self::Mount => "exec.cachemount",
        }
    }
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Unique among everything that is kept.
    pub id: String,
    /// What it is.
    pub kind: KeptKind,
    /// The same for people: an instruction, a path.
    pub what: String,
    /// Bytes on the disk; 0 if something else that is kept has the same layer and was used later.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used; within an hour after the daemon was started anew.
    pub used: Timestamp,
    /// How often it was used.
    pub uses: u64,
    /// A build that runs needs it: it cannot go.
    pub in_use: bool,
    /// An image has it too: that it goes frees nothing.
    pub shared: bool,
}

/// Whoever keeps something for later builds; all of them are in [`Inner::keepers`].
pub(crate) trait Keeper: Send + Sync {
    /// Everything that is kept, in any order. May block.
    fn kept(&self) -> Vec<Kept>;

    /// Forgets something, unless a running build needs it or it is gone (`None`); answers the bytes that this sets free. Blocks.
    ///
    /// # Errors
    /// The disk's.
    fn forget(&self, id: &str) -> Result<Option<u64>, store::Error>;
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneBuilds {
    /// Also what images have.
    pub all: bool,
    /// Only what was last used before.
    pub until: Option<Timestamp>,
    /// Only these (beginnings of ids); empty: any.
    pub ids: Vec<String>,
    /// Only these; empty: any.
    pub kinds: Vec<KeptKind>,
    /// Only those that a build needs (which stay in any case), or that none needs.
    pub in_use: Option<bool>,
    /// Only those that an image has too, or that none has.
    pub shared: Option<bool>,
    /// Only what has one of these in its description; empty: any.
    pub what: Vec<String>,
    /// Bytes that may stay.
    pub keep: u64,
}

impl PruneBuilds {
    fn takes(&self, kept: &Kept) -> bool {
        !kept.in_use
            && (self.all || !kept.shared)
            && self.until.is_none_or(|until| kept.used < until)
            && (self.ids.is_empty() || self.ids.iter().any(|id| kept.id.starts_with(id.as_str())))
            && (self.kinds.is_empty() || self.kinds.contains(&kept.kind))
            && self.in_use.is_none_or(|wanted| kept.in_use == wanted)
            && self.shared.is_none_or(|wanted| kept.shared == wanted)
            && (self.what.is_empty() || self.what.iter().any(|part| kept.what.contains(part)))
    }
}

impl Engine {
    /// Everything that builds have left, the longest unused first.
    pub async fn kept_of_builds(&self) -> Vec<Kept> {
        let inner = self.inner().clone();
        blocking(move || inner.kept()).await
    }

    /// Forgets what builds have left, the longest unused first, until no more than `keep` bytes are there. Answers what has gone
    /// and how many bytes that sets free; what images and running builds need stays.
    ///
    /// # Errors
    /// The disk's; what was forgotten until then is.
    pub async fn prune_builds(&self, wanted: PruneBuilds) -> Result<(Vec<Kept>, u64), Error> {
        let inner = self.inner().clone();
        blocking(move || inner.prune_builds(&wanted)).await.step(About::Engine, "forget what builds have left")
    }
}

impl Inner {
    /// Everybody who keeps something for builds.
    fn keepers(&self) -> Vec<&dyn Keeper> {
        vec![&self.builds, &self.caches, &self.contexts]
    }

    fn kept(&self) -> Vec<Kept> {
        let mut all: Vec<Kept> = self.keepers().into_iter().flat_map(Keeper::kept).collect();
        all.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
        all
    }

    fn prune_builds(&self, wanted: &PruneBuilds) -> Result<(Vec<Kept>, u64), store::Error> {
        let all = self.kept();
        let mut left: u64 = all.iter().filter(|kept| !kept.shared).map(|kept| kept.size).sum();
        let (mut gone, mut freed) = (Vec::new(), 0);
        for kept in all {
            if wanted.keep > 0 && left <= wanted.keep {
                break;
            }
            if !wanted.takes(&kept) {
                continue;
            }
            for keeper in self.keepers() {
                if let Some(bytes) = keeper.forget(&kept.id)? {
                    left = left.saturating_sub(bytes);
                    freed += bytes;
                    gone.push(kept.clone());
                    break;
                }
            }
        }
        Ok((gone, freed))
    }

    /// Writes down what was used, and forgets what is too much. A failure is for the log: it takes nothing from a build.
    pub(super) fn settle_builds(&self) {
        let limit = self.config.build_cache_limit.unwrap_or(u64::MAX);
        let settled = self.builds.settle().and_then(|()| {
            // What an image has too is none of the limit's.
            self.prune_builds(&PruneBuilds { keep: limit.max(1), ..PruneBuilds::default() })
        });
        match settled {
            Ok((gone, freed)) if !gone.is_empty() => {
                tracing::info!(things = gone.len(), bytes = freed, "old steps of builds forgotten")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %crate::chain(&error), "the cache of builds is not in order"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: &str, used: Timestamp) -> Kept {
        let (in_use, shared) = (false, false);
        Kept { id: id.into(), kind: KeptKind::Step, what: String::new(), size: 1, created: 0, used, uses: 0, in_use, shared }
    }

    #[test]
    fn what_may_go() {
        let all = PruneBuilds { all: true, ..PruneBuilds::default() };
        let some = PruneBuilds::default();
        assert!(some.takes(&kept("a", 5)));
        assert!(!all.takes(&Kept { in_use: true, ..kept("a", 5) }));
        let shared = Kept { shared: true, ..kept("a", 5) };
        assert!(all.takes(&shared) && !some.takes(&shared));
        let until = PruneBuilds { until: Some(5), ..PruneBuilds::default() };
        assert!(until.takes(&kept("a", 4)) && !until.takes(&kept("a", 5)));
        let named = PruneBuilds { ids: vec!["ab".into()], kinds: vec![KeptKind::Step], ..PruneBuilds::default() };
        assert!(named.takes(&kept("abc", 0)) && !named.takes(&kept("a", 0)));
        assert!(!named.takes(&Kept { kind: KeptKind::Mount, ..kept("abc", 0) }));
        let free = PruneBuilds { in_use: Some(false), ..PruneBuilds::default() };
        assert!(free.takes(&kept("a", 0)) && !PruneBuilds { in_use: Some(true), ..free }.takes(&kept("a", 0)));
        let of_images = PruneBuilds { all: true, shared: Some(true), ..PruneBuilds::default() };
        assert!(of_images.takes(&shared) && !of_images.takes(&kept("a", 0)));
        let told = PruneBuilds { what: vec!["make".into()], ..PruneBuilds::default() };
        assert!(told.takes(&Kept { what: "RUN make".into(), ..kept("a", 0) }) && !told.takes(&kept("a", 0)));
    }
}
