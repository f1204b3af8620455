//! CNI client: runs the plugins of the first usable network configuration (CNI specification 1.1, and back to 0.3.0).
//!
//! **Invariant:** a pod's DEL uses the configuration that its ADD used, whatever lies in the directory by then.

mod chain;
mod conf;
mod plugin;
mod process;
mod record;
mod result;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use model::{PodId, pod::PodKey};

pub use result::{CniResult, parse_result};

use crate::{AttachRequest, Attached, Error, Status, bridge::Subnet, error};
use chain::{Chain, Identity};
use conf::{Directory, NetworkList};
use record::Record;

/// How often plugins are asked for their status.
const STATUS_EVERY: Duration = Duration::from_secs(10);
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where CNI's files are, and how long plugins may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConfig {
    /// Directory of network configurations.
    pub conf_dir: PathBuf,
    /// Directories of plugins, searched in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// For a whole chain of ADD, and for one of DEL.
    pub timeout: Duration,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self { conf_dir: "/etc/cni/net.d".into(), bin_dirs: vec!["/opt/cni/bin".into()], timeout: Duration::from_secs(60) }
    }
}

/// What is owed for a pod whose ADD began, as long as this daemon lives: its caller may never get to keep the record.
#[derive(Debug)]
enum Owed {
    /// DEL with this.
    Delete(Record),
    /// Nothing: everything was taken back.
    Nothing,
}

/// A plugin's answer to STATUS.
#[derive(Debug)]
struct Health {
    asked: Instant,
    network: Arc<NetworkList>,
    status: Status,
}

/// The CNI client.
#[derive(Debug)]
pub struct Cni {
    config: CniConfig,
    directory: Mutex<Directory>,
    pod_cidrs: Mutex<Vec<Subnet>>,
    owed: Mutex<HashMap<PodId, Owed>>,
    health: Mutex<Option<Health>>,
    asking: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cni {
    /// A client. Nothing is read or run yet; a directory that does not exist may appear later.
    pub fn new(config: CniConfig) -> Self {
        Self {
            directory: Mutex::new(Directory::new(config.conf_dir.clone())),
            config,
            pod_cidrs: Mutex::default(),
            owed: Mutex::default(),
            health: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    fn network(&self) -> Result<Arc<NetworkList>, Error> {
        lock(&self.directory).current().map_err(Error::NoCniNetwork)
    }

    fn prepare(&self, request: &AttachRequest<'_>) -> Result<Record, Error> {
        let network = self.network()?;
        let runtime = chain::capability_arguments(request, &lock(&self.pod_cidrs));
        Ok(Record { network, runtime, result: None })
    }

    /// See [`crate::Network::intent`].
    pub(crate) fn intent(&self, request: &AttachRequest<'_>) -> Result<Vec<u8>, Error> {
        self.prepare(request)?.encode(request.pod)
    }

    fn chain<'a>(&'a self, record: &'a Record, identity: &'a Identity) -> Chain<'a> {
        Chain {
            bin_dirs: &self.config.bin_dirs,
            timeout: self.config.timeout,
            network: &record.network,
            runtime: &record.runtime,
            identity,
        }
    }

    /// See [`crate::Network::attach`].
    pub(crate) fn attach(&self, request: &AttachRequest<'_>) -> Result<Attached, Error> {
        let identity = Identity::new(request.pod, request.key, Some(request.netns))?;
        let mut record = self.prepare(request)?;
        lock(&self.owed).insert(request.pod, Owed::Delete(record.clone()));
        let failure = match self.chain(&record, &identity).add() {
            Ok((result, raw)) => {
                record.result = Some(raw);
                let mut ips = result.ips.into_iter();
                let ip = ips.next().expect("a result without addresses is refused");
                let encoded = record.encode(request.pod)?;
                lock(&self.owed).insert(request.pod, Owed::Delete(record));
                return Ok(Attached { ip, additional: ips.collect(), record: encoded });
            }
            Err(failure) => failure,
        };
        record.result = failure.last_result;
        // What cannot be taken back now stays owed; detach tries again and reports it.
        let settled = match self.chain(&record, &identity).delete(failure.plugin + 1, record.result.as_ref()) {
            Ok(()) => Owed::Nothing,
            Err(_) => Owed::Delete(record),
        };
        lock(&self.owed).insert(request.pod, settled);
        Err(failure.error)
    }

    /// See [`crate::Network::detach`].
    pub(crate) fn detach(&self, pod: PodId, key: &PodKey, netns: Option<&Path>, record: Option<&[u8]>) -> Result<(), Error> {
        let record = match record {
            Some(bytes) => Record::decode(pod, bytes)?,
            None => match self.what_is_owed(pod) {
                Some(Owed::Delete(record)) => record,
                Some(Owed::Nothing) => return Ok(()),
                // Nobody knows whether there was an ADD (a crash in between): plugins take a DEL too many in their
                // stride. Without any configuration there was none.
                None => match self.network() {
                    Ok(network) => Record { network, runtime: serde_json::Map::new(), result: None },
                    Err(_) => return Ok(()),
                },
            },
        };
        let identity = Identity::new(pod, key, netns.filter(|path| path.exists()))?;
        self.chain(&record, &identity).delete(record.network.plugins.len(), record.result.as_ref())?;
        lock(&self.owed).remove(&pod);
        Ok(())
    }

    /// What is known about a pod without a record. That nothing is owed is told once and forgotten.
    fn what_is_owed(&self, pod: PodId) -> Option<Owed> {
        let mut owed = lock(&self.owed);
        match owed.get(&pod)? {
            Owed::Delete(record) => Some(Owed::Delete(record.clone())),
            Owed::Nothing => owed.remove(&pod),
        }
    }

    /// See [`crate::Network::status`].
    pub(crate) fn status(&self) -> Status {
        let network = match self.network() {
            Ok(network) => network,
            Err(e) => return Status::NotReady { reason: "NetworkPluginNotReady", message: error::chain(&e) },
        };
        if let Err(e) = chain::find_all(&self.config.bin_dirs, &network) {
            return Status::NotReady { reason: "NetworkPluginNotReady", message: error::chain(&e) };
        }
        if !network.has_status() {
            return Status::Ready;
        }
        let known = |health: &Option<Health>| {
            health.as_ref().filter(|h| Arc::ptr_eq(&h.network, &network)).map(|h| (h.asked.elapsed(), h.status.clone()))
        };
        match known(&lock(&self.health)) {
            Some((age, status)) if age < STATUS_EVERY => return status,
            _ => {}
        }
        let _asking = match self.asking.try_lock() {
            Ok(guard) => guard,
            // Somebody else is asking; until it is answered, the last answer counts.
            Err(TryLockError::WouldBlock) => return known(&lock(&self.health)).map_or(Status::Ready, |(_, status)| status),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let status = match chain::status(&self.config.bin_dirs, STATUS_TIMEOUT, &network) {
            Ok(()) => Status::Ready,
            Err(e) => Status::NotReady { reason: "NetworkPluginNotReady", message: error::chain(&e) },
        };
        *lock(&self.health) = Some(Health { asked: Instant::now(), network, status: status.clone() });
        status
    }

    /// See [`crate::Network::set_pod_cidr`]. Handed to plugins with the capability `ipRanges`.
    pub(crate) fn set_pod_cidr(&self, cidrs: &str) -> Result<(), Error> {
        let parsed: Result<Vec<Subnet>, _> = cidrs.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse).collect();
        let parsed = parsed.map_err(|_| Error::PodCidr(cidrs.chars().take(200).collect()))?;
        if !parsed.is_empty() {
            *lock(&self.pod_cidrs) = parsed;
        }
        Ok(())
    }
}
