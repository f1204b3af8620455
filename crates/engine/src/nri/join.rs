//! How a connection becomes a member, and how it ends.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use ::nri::{Installed, Listener, Options, Origin, Plugin, Requests};
use model::ErrorKind;
use tokio::net::UnixStream;

use super::{Member, NriConfig, launch::Launched, message};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
};

/// Connections that are registering at one time. Each of them has a deadline.
const REGISTERING: usize = 16;
/// How long a plugin that was started may go on after its connection has ended.
const GRACE: Duration = Duration::from_secs(2);

impl Inner {
    /// Starts the pre-installed plugins and listens for others. When this returns, those that were installed have been
    /// synchronized or given up.
    pub(crate) async fn start_nri(self: &Arc<Self>) -> Result<(), Error> {
        let Some(config) = self.config.nri.clone() else { return Ok(()) };
        // Another runtime of the node may have the socket; pods do not suffer from that.
        let listener = config.socket.as_deref().and_then(|path| match Listener::bind(path) {
            Ok(listener) => Some(listener),
            Err(e) => {
                tracing::warn!(error = crate::chain(&e), "NRI plugins cannot connect");
                None
            }
        });
        let (plugins, configs) = (config.plugins.clone(), config.plugin_config.clone());
        let installed = blocking(move || ::nri::discover(&plugins, &configs)).await;
        let installed = installed.step(About::Engine, "find the NRI plugins")?;
        let starts = installed.into_iter().map(|plugin| self.start_plugin(&config, plugin));
        futures_util::future::join_all(starts).await;
        if let Some(listener) = listener {
            self.nri.spawn(listen(Arc::downgrade(self), listener));
        }
        Ok(())
    }

    async fn start_plugin(self: &Arc<Self>, config: &NriConfig, installed: Installed) {
        let path = installed.path.clone();
        if let Err(e) = self.try_start_plugin(config, installed).await {
            tracing::warn!(plugin = %path.display(), error = e.chain(), "NRI plugin not started");
        }
    }

    async fn try_start_plugin(self: &Arc<Self>, config: &NriConfig, installed: Installed) -> Result<(), Error> {
        let Installed { index, name, path, config: text } = installed;
        let (stream, process) = Launched::start(&path, &index, &name)?;
        let origin = Origin::Installed { index, name, config: text };
        self.join(config, stream, origin, Some(process)).await
    }

    /// Registration, configuration, synchronization; from then on the plugin is asked.
    async fn join(
        self: &Arc<Self>,
        config: &NriConfig,
        stream: UnixStream,
        origin: Origin,
        process: Option<Launched>,
    ) -> Result<(), Error> {
        let options = Options {
            runtime: "creel".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            registration_timeout: config.registration_timeout,
            request_timeout: config.request_timeout,
        };
        let (plugin, requests) = Plugin::connect(stream, origin, options).await.step(About::Engine, "register an NRI plugin")?;
        let member = Arc::new(Member { id: plugin.id(), plugin, turn: Arc::default() });
        // Taken before anybody can know it: whatever happens from the snapshot on waits behind the synchronization.
        let turn = member.turn.clone().try_lock_owned();
        let turn = turn.map_err(|_| Error::new(ErrorKind::Internal, About::Engine, "a new plugin is busy already"))?;
        let (pods, containers) = self.nri.add(member.clone(), || (self.table.pods(), self.table.containers()));
        self.nri.spawn(watch(Arc::downgrade(self), member.clone(), requests, process));
        let pods = pods.iter().map(|pod| message::pod(pod)).collect();
        let containers = containers.iter().map(|container| message::container(container)).collect();
        let synchronized = member.plugin.synchronize(pods, containers).await;
        let updates = match synchronized {
            Ok(updates) => updates,
            Err(error) => {
                member.plugin.close(&error.to_string());
                return Err(error).step(About::Engine, "synchronize an NRI plugin");
            }
        };
        drop(turn);
        tracing::info!(plugin = member.id, "NRI plugin connected");
        self.apply_updates(&member.id, updates).await;
        Ok(())
    }
}

async fn listen(engine: Weak<Inner>, listener: Listener) {
    let places = Arc::new(tokio::sync::Semaphore::new(REGISTERING));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = listener.accept().await;
        let Some(inner) = engine.upgrade() else { return };
        let Some(config) = inner.config.nri.clone() else { return };
        let joined = engine.clone();
        inner.nri.spawn(async move {
            let Some(inner) = joined.upgrade() else { return };
            if let Err(e) = inner.join(&config, stream, Origin::External, None).await {
                tracing::warn!(error = e.chain(), "NRI plugin not connected");
            }
            drop(place);
        });
    }
}

/// Carries out what a plugin asks for by itself, until its connection ends.
async fn watch(engine: Weak<Inner>, member: Arc<Member>, mut requests: Requests, process: Option<Launched>) {
    loop {
        tokio::select! {
            biased;
            why = member.plugin.closed() => {
                tracing::warn!(plugin = member.id, %why, "NRI plugin gone; pods go on without it");
                break;
            }
            Some(request) = requests.next() => {
                let Some(inner) = engine.upgrade() else { break };
                let (update, evict) = (request.request.update.clone(), request.request.evict.clone());
                let failed = inner.apply_updates(&member.id, update).await;
                inner.evict(&member.id, evict);
                request.answer(failed).await;
            }
        }
    }
    if let Some(inner) = engine.upgrade() {
        inner.nri.remove(&member);
    }
    if let Some(process) = process {
        process.end(GRACE).await;
    }
}
