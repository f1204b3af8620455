//! RunPodSandbox: the set-up of a pod, with the way back beside every step.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use minicbor::bytes::ByteVec;
use model::{
    ErrorKind, PodId,
    plan::PodPlan,
    pod::{NamespaceMode, Network, PodSpec, PodState, Reason},
};

use super::{Pod, PodParts, PodPaths, Supervisor, events};
use crate::{
    Inner,
    blocking::blocking,
    clock,
    driver::{self, CgroupDriver},
    error::{About, Error, Step},
    events::EventKind,
    failpoint,
    networks::own_network,
    nri::{Asked, Members, PodFacts},
    record::{NetworkDebt, PodPhase, PodRecord},
    shim::{Shim, ShimEvents, SpawnArgs},
    spec,
    undo::Undo,
};

impl Inner {
    /// Runs a pod, joins an attempt in flight for the same key, or returns the pod that an earlier attempt made.
    pub(crate) async fn run_pod(self: &Arc<Self>, spec: PodSpec) -> Result<PodId, Error> {
        self.handlers.admit(&spec.runtime_handler, spec.userns.is_some()).await?;
        if spec.userns.is_some() {
            self.user_namespaces().await?;
        }
        if let Some(pod) = self.table.pod_by_key(&spec.key) {
            return already(&pod, &spec);
        }
        let inner = self.clone();
        let key = spec.key.clone();
        let outcome = self.starting.join(key, move || async move {
            // Between the look-up above and here an attempt may have ended.
            match inner.table.pod_by_key(&spec.key) {
                Some(pod) => already(&pod, &spec),
                None => Setup::new(&inner, spec)?.run().await,
            }
        });
        outcome
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, About::Engine, "run pod: the attempt crashed; see the log")))
    }
}

/// What a repeated request gets.
fn already(pod: &Pod, spec: &PodSpec) -> Result<PodId, Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::AlreadyExists, About::Pod(pod.id), why));
    match pod.state() {
        PodState::Ready { .. } if pod.spec == *spec => Ok(pod.id),
        PodState::Ready { .. } => refuse("a pod with this name, namespace, uid and attempt runs with another configuration"),
        PodState::NotReady { .. } => {
            refuse("a stopped pod with this name, namespace, uid and attempt exists: remove it or raise the attempt")
        }
    }
}

struct Setup {
    inner: Arc<Inner>,
    record: PodRecord,
    paths: PodPaths,
    plan: PodPlan,
    /// Plugins that have been asked about it.
    asked: Asked,
    undo: Undo,
}

/// What the steps have made.
struct Made {
    shim: Arc<Shim>,
    events: ShimEvents,
    network: Network,
}

impl Setup {
    fn new(inner: &Arc<Inner>, spec: PodSpec) -> Result<Self, Error> {
        let id = PodId::from_bytes(crate::random_id());
        let cgroup = spec::cgroup::pod(&spec.cgroup_parent, &inner.placement, id).step(id, "cgroup parent")?;
        let mut plan =
            spec::pod_plan(&spec, &spec::cgroup::supervisor(&cgroup, id), inner.config.shm_size).step(id, "pod configuration")?;
        let selinux_level = inner.modules.level(id, &spec);
        plan.mount_label = match inner.modules.pod_files(&spec, selinux_level.as_deref()) {
            Err(e) => {
                inner.modules.release(id);
                return Err(e).step(id, "security context");
            }
            Ok(label) => label,
        };
        let owes_network = spec.namespaces.network == NamespaceMode::Pod && !spec::no_network(&spec) && !spec::joins_network(&spec);
        let record = PodRecord {
            id,
            boot: inner.boot.clone(),
            created_at: clock::now(),
            spec,
            phase: PodPhase::Preparing,
            network: if owes_network { NetworkDebt::Begun } else { NetworkDebt::None },
            cgroup,
            own_cgroup: false,
            selinux_level,
            more_networks: None,
            size: None,
        };
        Ok(Self {
            inner: inner.clone(),
            paths: PodPaths::new(&inner.config.run, id),
            record,
            plan,
            asked: Asked::default(),
            undo: Undo::default(),
        })
    }

    async fn run(mut self) -> Result<PodId, Error> {
        let finished = match self.steps().await {
            Ok(made) => self.insert(&made).await.map(|pod| (pod, made.events)),
            Err(error) => Err(error),
        };
        match finished {
            Ok((pod, events)) => Ok(self.publish(&pod, events)),
            Err(error) => {
                self.fail(&error).await;
                Err(error)
            }
        }
    }

    async fn steps(&mut self) -> Result<Made, Error> {
        self.write_record().await?;
        self.make_cgroup().await?;
        let (shim, events) = self.spawn_supervisor().await?;
        let network = self.attach_network(&shim).await?;
        self.write_files(&network).await?;
        if let Some(plugins) = self.inner.nri.members() {
            self.ask(plugins, &shim, &network).await?;
        }
        failpoint::hit("pod.ready", self.record.id)?;
        self.record.phase = PodPhase::of(&PodState::Ready { network: network.clone() });
        self.put_record("write pod record as ready").await?;
        Ok(Made { shim, events, network })
    }

    async fn put_record(&self, step: &'static str) -> Result<(), Error> {
        let (inner, record) = (self.inner.clone(), self.record.clone());
        blocking(move || inner.put_pod(&record)).await.step(self.record.id, step)
    }

    async fn write_record(&mut self) -> Result<(), Error> {
        let (inner, id) = (self.inner.clone(), self.record.id);
        // Known before it is made, so that it is removed even if nobody lives to say that it was.
        let there = inner.group(&self.record.cgroup).step(id, "cgroup parent")?.exists();
        self.record.own_cgroup = !there || inner.is_ours(&self.record.cgroup);
        self.undo.push("pod record", move || async move {
            inner.modules.release(id);
            blocking(move || inner.store.remove_pod(id)).await.map_err(|e| crate::chain(&e))
        });
        let (dir, log) = (self.paths.dir.clone(), PathBuf::from(&self.record.spec.log_directory));
        let made = self.paths.dir.clone();
        self.undo.push("pod directory", move || async move {
            blocking(move || crate::remove_pod_dir(&made)).await.map_err(|e| crate::chain(&e))
        });
        failpoint::hit("pod.record", id)?;
        self.put_record("write pod record").await?;
        let made = blocking(move || {
            crate::make_private_dir(&dir)?;
            if log.as_os_str().is_empty() { Ok(()) } else { std::fs::create_dir_all(&log) }
        });
        made.await.step(id, "make the pod's run and log directories")
    }

    async fn make_cgroup(&mut self) -> Result<(), Error> {
        let id = self.record.id;
        let (inner, pod, own) = (self.inner.clone(), self.record.cgroup.clone(), self.plan.cgroup.clone());
        let ours = self.record.own_cgroup;
        self.undo.push("pod cgroup", move || async move {
            blocking(move || {
                inner.group(&own).and_then(|group| group.remove()).step(id, "remove the supervisor's cgroup")?;
                if ours { inner.remove_pod_cgroup(id, &pod) } else { Ok(()) }
            })
            .await
            .map_err(|e| e.chain())
        });
        failpoint::hit("pod.cgroup", id)?;
        if self.inner.placement.driver == CgroupDriver::Systemd {
            return Ok(()); // It comes with the first process in it.
        }
        let (inner, own) = (self.inner.clone(), self.plan.cgroup.clone());
        blocking(move || inner.group(&own)?.create()).await.step(id, "make the pod's cgroup")
    }

    async fn enter_scope(&mut self, supervisor: u32) -> Result<(), Error> {
        if self.inner.placement.driver != CgroupDriver::Systemd {
            return Ok(());
        }
        let id = self.record.id;
        failpoint::hit("pod.scope", id)?;
        let (inner, pod, own) = (self.inner.clone(), self.record.cgroup.clone(), self.plan.cgroup.clone());
        blocking(move || {
            driver::enter_scope(&inner, id, &pod, supervisor)?;
            let own = inner.group(&own).step(id, "supervisor's cgroup")?;
            own.adopt(supervisor).and_then(|()| own.create()).step(id, "make the supervisor's cgroup")
        })
        .await
    }

    async fn spawn_supervisor(&mut self) -> Result<(Arc<Shim>, ShimEvents), Error> {
        let id = self.record.id;
        let (inner, cgroup) = (self.inner.clone(), self.plan.cgroup.clone());
        let started: Arc<OnceLock<Arc<Shim>>> = Arc::default();
        let known = started.clone();
        self.undo.push("supervisor", move || async move {
            // One that answers ends by itself. One that does not is in its cgroup, or was killed by `Shim::spawn`.
            if let Some(shim) = known.get()
                && let Err(e) = shim.shutdown().await
            {
                tracing::debug!(error = %e, "shutdown");
                sys::process::signal(shim.pidfd(), model::Signal::KILL).ok();
            }
            blocking(move || inner.kill_group(&cgroup)).await.map_err(|e| crate::chain(&e))
        });
        failpoint::hit("pod.spawn", id)?;
        let args = SpawnArgs { exe: self.inner.shim_exe.clone(), pod: id, pod_dir: self.paths.dir.clone() };
        let (shim, events) = Shim::spawn(args).await.step(id, "start the supervisor")?;
        let shim = Arc::new(shim);
        started.get_or_init(|| shim.clone());
        self.enter_scope(shim.pid()).await?;
        failpoint::hit("pod.setup", id)?;
        let joined = self.inner.joined(&self.record.spec).await?;
        shim.setup(&self.plan, joined).await.step(id, "set up the supervisor's namespaces")?;
        Ok((shim, events))
    }

    async fn attach_network(&mut self, shim: &Shim) -> Result<Network, Error> {
        if self.record.spec.namespaces.network == NamespaceMode::Node || spec::joins_network(&self.record.spec) {
            return Ok(Network::Host);
        }
        let id = self.record.id;
        if spec::no_network(&self.record.spec) {
            let netns = shim.netns();
            blocking(move || net::loopback(&netns)).await.step(id, "bring the pod's loopback interface up")?;
            return Ok(Network::Host);
        }
        let (inner, spec, netns) = (self.inner.clone(), self.record.spec.clone(), shim.netns());
        self.undo.push("network", move || async move {
            blocking(move || inner.detach_pod(&spec, id, Some(&netns), None)).await.map_err(|e| crate::chain(&e))
        });
        failpoint::hit("pod.network", id)?;
        let netns = shim.netns();
        let intent = self.with_network(netns.clone(), |inner, spec, request| match own_network(spec) {
            Some(_) => Ok(Vec::new()),
            None => inner.network.intent(request),
        });
        let intent = intent.await.step(id, "read the network configuration")?;
        if !intent.is_empty() {
            // Written before ADD: whatever dies or fails from here on, DEL is owed with this configuration (F-32).
            self.record.network = NetworkDebt::Attached(ByteVec::from(intent));
            self.put_record("write the network's configuration down").await?;
        }
        let attached = self.with_network(netns, |inner, spec, request| inner.attach_pod(spec, request)).await?;
        self.record.network = NetworkDebt::Attached(ByteVec::from(attached.record));
        failpoint::hit("pod.network-done", id)?;
        Ok(Network::Pod { ip: attached.ip, additional: attached.additional })
    }

    async fn with_network<T: Send + 'static>(
        &self,
        netns: PathBuf,
        work: impl FnOnce(&Inner, &PodSpec, &net::AttachRequest<'_>) -> T + Send + 'static,
    ) -> T {
        let (inner, pod, spec) = (self.inner.clone(), self.record.id, self.record.spec.clone());
        blocking(move || {
            let (ports, dns) = (&spec.port_mappings, spec.dns.as_ref());
            work(&inner, &spec, &net::AttachRequest { pod, key: &spec.key, netns: &netns, ports, dns })
        })
        .await
    }

    /// Asks NRI plugins whether the pod may be.
    async fn ask(&mut self, plugins: Members, shim: &Shim, network: &Network) -> Result<(), Error> {
        let PodRecord { id, spec, cgroup, .. } = &self.record;
        let pod = PodFacts { id: *id, spec, cgroup, pid: Some(shim.pid()), network: Some(network) };
        plugins.run_pod(pod, &mut self.undo).await?;
        self.asked.add(plugins);
        Ok(())
    }

    async fn write_files(&mut self, network: &Network) -> Result<(), Error> {
        let id = self.record.id;
        failpoint::hit("pod.files", id)?;
        let (spec, network, dir) = (self.record.spec.clone(), network.clone(), self.paths.dir.clone());
        let of = self.inner.network_holder(&spec).map(|pod| pod.paths.dir.clone());
        blocking(move || match of {
            Some(of) => spec::files::copy(&of, &dir),
            None => spec::files::write(&spec, &network, &dir),
        })
        .await
        .step(id, "write hosts, hostname and resolv.conf")
    }

    /// Puts the pod into the table. Plugins that have joined meanwhile are asked first.
    async fn insert(&mut self, made: &Made) -> Result<Arc<Pod>, Error> {
        let state = PodState::Ready { network: made.network.clone() };
        let parts = PodParts { record: self.record.clone(), state, supervisor: Supervisor::Alive(made.shim.clone()) };
        let pod = Pod::new(parts, self.paths.clone());
        loop {
            match self.inner.nri.commit(&self.asked, || self.inner.table.insert_pod(pod.clone())) {
                Ok(inserted) => return inserted.map(|()| pod),
                Err(late) => self.ask(late, &made.shim, &made.network).await?,
            }
        }
    }

    /// From here on the pod exists.
    fn publish(mut self, pod: &Arc<Pod>, events: ShimEvents) -> PodId {
        self.undo.disarm();
        events::watch(&self.inner, pod, events);
        tracing::info!(pod = %pod.id.short(), name = pod.spec.key.name, namespace = pod.spec.key.namespace, to = "ready", "pod");
        self.inner.events.of_pod(EventKind::Created, pod);
        self.inner.events.of_pod(EventKind::Started, pod);
        pod.id
    }

    /// Undoes everything. What cannot be undone (a network DEL that fails) is kept as a stopped pod, so that
    /// StopPodSandbox and RemovePodSandbox can try again.
    async fn fail(self, error: &Error) {
        let Self { inner, mut record, paths, undo, .. } = self;
        let left = undo.unwind().await;
        if left.is_empty() {
            return;
        }
        let why = Reason::SetupFailed(error.chain());
        record.phase = PodPhase::Stopped;
        let pod = Pod::new(PodParts { record, state: PodState::NotReady { why }, supervisor: Supervisor::Gone }, paths);
        if let Err(e) = pod.persist(&inner).await {
            tracing::warn!(pod = %pod.id.short(), error = e.chain(), "what a failed set-up left could not be written down");
        }
        match inner.table.insert_pod(pod.clone()) {
            Ok(()) => {
                inner.events.of_pod(EventKind::Created, &pod);
                inner.events.of_pod(EventKind::Stopped, &pod);
            }
            Err(e) => tracing::warn!(error = e.chain(), "what a failed set-up left could not be listed"),
        }
    }
}
