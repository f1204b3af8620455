//! Records of pods and containers, and of containers of people: one file each, opaque to us. They survive the death of the daemon; the loss of power
//! only if asked for, because no pod's start may wait for a disk.

use std::{fmt, path::PathBuf, str::FromStr};

use model::{ContainerId, NetworkId, PodId, StepId};

use crate::{
    Error, Store,
    disk::{self, Sync},
    envelope,
};

/// A record with labels and annotations at all their limits is far below this.
const LIMIT: u64 = 64 << 20;

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which, as its file is called below the root.
    pub name: String,
    /// Why.
    pub why: String,
    /// Where it is now; `None`: it could not even be moved.
    pub moved_to: Option<PathBuf>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)?;
        match &self.moved_to {
            Some(path) => write!(f, " (now {})", path.display()),
            None => f.write_str(" (still there)"),
        }
    }
}

/// What [`Store::load_pods`] and [`Store::load_containers`] find.
pub(crate) type Loaded<Id> = (Vec<(Id, Vec<u8>)>, Vec<Damaged>);

const PODS: &str = "records/pods";
const CONTAINERS: &str = "records/containers";
const USERS: &str = "records/users";
const NETWORKS: &str = "records/networks";
const BUILDS: &str = "records/builds";
const CONTEXTS: &str = "records/contexts";

impl Store {
    /// Writes a pod's record, without waiting for the disk.
    ///
    /// # Errors
    /// If the disk is full or fails; the old record is untouched then.
    pub fn put_pod(&self, id: PodId, payload: &[u8]) -> Result<(), Error> {
        self.put(PODS, &id.to_string(), payload, Sync::Later)
    }

    /// Removes a pod's record; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove_pod(&self, id: PodId) -> Result<(), Error> {
        disk::unlink(&self.shared.layout.at(PODS).join(id.to_string()))
    }

    /// All pods' records. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_pods(&self) -> Result<Loaded<PodId>, Error> {
        self.load(PODS)
    }

    /// Writes a container's record, without waiting for the disk.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_container(&self, id: ContainerId, payload: &[u8]) -> Result<(), Error> {
        self.put(CONTAINERS, &id.to_string(), payload, Sync::Later)
    }

    /// Removes a container's record; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove_container(&self, id: ContainerId) -> Result<(), Error> {
        disk::unlink(&self.shared.layout.at(CONTAINERS).join(id.to_string()))
    }

    /// All containers' records. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_containers(&self) -> Result<Loaded<ContainerId>, Error> {
        self.load(CONTAINERS)
    }

    /// Writes the record of a container of people, so that the loss of power does not lose it.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_user(&self, id: ContainerId, payload: &[u8]) -> Result<(), Error> {
        self.put(USERS, &id.to_string(), payload, Sync::Now)
    }

    /// Removes the record of a container of people for good; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) and fsync(2) say.
    pub fn remove_user(&self, id: ContainerId) -> Result<(), Error> {
        let directory = self.shared.layout.at(USERS);
        disk::unlink(&directory.join(id.to_string()))?;
        disk::sync_dir(&directory)
    }

    /// All records of containers of people. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_users(&self) -> Result<Loaded<ContainerId>, Error> {
        self.load(USERS)
    }

    /// Puts the record of a container of people aside that was read and not understood. Says where it is now.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn quarantine_user(&self, id: ContainerId) -> Result<PathBuf, Error> {
        self.put_aside(USERS, &id.to_string())
    }

    /// Writes a network's record so that the loss of power does not lose it.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_network(&self, id: NetworkId, payload: &[u8]) -> Result<(), Error> {
        self.put(NETWORKS, &id.to_string(), payload, Sync::Now)
    }

    /// Removes a network's record for good; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) and fsync(2) say.
    pub fn remove_network(&self, id: NetworkId) -> Result<(), Error> {
        let directory = self.shared.layout.at(NETWORKS);
        disk::unlink(&directory.join(id.to_string()))?;
        disk::sync_dir(&directory)
    }

    /// All records of networks. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_networks(&self) -> Result<Loaded<NetworkId>, Error> {
        self.load(NETWORKS)
    }

    /// Puts a network's record aside that was read and not understood. Says where it is now.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn quarantine_network(&self, id: NetworkId) -> Result<PathBuf, Error> {
        self.put_aside(NETWORKS, &id.to_string())
    }

    /// Writes what a step of a build has made, without waiting for the disk: a lost one is built again.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_step(&self, id: StepId, payload: &[u8]) -> Result<(), Error> {
        self.put(BUILDS, &id.to_string(), payload, Sync::Later)
    }

    /// Removes the record of a step; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove_step(&self, id: StepId) -> Result<(), Error> {
        disk::unlink(&self.shared.layout.at(BUILDS).join(id.to_string()))
    }

    /// All records of steps. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_steps(&self) -> Result<Loaded<StepId>, Error> {
        self.load(BUILDS)
    }

    /// Writes what is known of a context of builds, without waiting for the disk: of a lost one all files are sent again.
    ///
    /// # Errors
    /// As [`Store::put_pod`]; a payload that is too large to be read again is `FileTooLarge`.
    pub fn put_context(&self, id: StepId, payload: &[u8]) -> Result<(), Error> {
        let path = self.shared.layout.at(CONTEXTS).join(id.to_string());
        if payload.len() as u64 > LIMIT / 2 {
            return Err(Error::io("write", &path, std::io::ErrorKind::FileTooLarge));
        }
        self.put(CONTEXTS, &id.to_string(), payload, Sync::Later)
    }

    /// The record of a context; `None`: there is none, or it is damaged.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn context(&self, id: StepId) -> Result<Option<Vec<u8>>, Error> {
        let found = disk::read(&self.shared.layout.at(CONTEXTS).join(id.to_string()), LIMIT)?;
        Ok(found.and_then(|bytes| envelope::open(&bytes).ok().map(<[u8]>::to_vec)))
    }

    /// Removes the record of a context; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove_context(&self, id: StepId) -> Result<(), Error> {
        disk::unlink(&self.shared.layout.at(CONTEXTS).join(id.to_string()))
    }

    /// All records of contexts. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_contexts(&self) -> Result<Loaded<StepId>, Error> {
        self.load(CONTEXTS)
    }

    /// Puts a pod's record aside that was read and not understood. Says where it is now.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn quarantine_pod(&self, id: PodId) -> Result<PathBuf, Error> {
        self.put_aside(PODS, &id.to_string())
    }

    /// Puts a container's record aside that was read and not understood. Says where it is now.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn quarantine_container(&self, id: ContainerId) -> Result<PathBuf, Error> {
        self.put_aside(CONTAINERS, &id.to_string())
    }

    fn put_aside(&self, directory: &str, name: &str) -> Result<PathBuf, Error> {
        let aside = self.shared.layout.quarantine(&format!("{}-{name}", directory.replace('/', "-")));
        disk::rename(&self.shared.layout.at(directory).join(name), &aside)?;
        Ok(aside)
    }

    pub(crate) fn put(&self, directory: &str, name: &str, payload: &[u8], sync: Sync) -> Result<(), Error> {
        let layout = &self.shared.layout;
        let (path, bytes) = (layout.at(directory).join(name), envelope::seal(payload));
        // A stop and a removal are written down too, and have to work on a full disk.
        self.shared.reserve.lend(|| disk::write(&path, &layout.temporary(), &bytes, sync))
    }

    pub(crate) fn load<Id: FromStr + Ord>(&self, directory: &str) -> Result<Loaded<Id>, Error> {
        let (mut good, mut damaged) = (Vec::new(), Vec::new());
        for path in disk::list(&self.shared.layout.at(directory))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read = match (name.parse::<Id>(), disk::read(&path, LIMIT)) {
                (Err(_), _) => Err("its name is not an id".to_owned()),
                (_, Ok(None)) => continue,
                (_, Err(e)) => Err(format!("{e}: {}", std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default())),
                (Ok(id), Ok(Some(bytes))) => {
                    envelope::open(&bytes).map(|payload| (id, payload.to_vec())).map_err(|e| e.to_string())
                }
            };
            match read {
                Ok(record) => good.push(record),
                Err(why) => {
                    let moved_to = self.put_aside(directory, &name).ok();
                    damaged.push(Damaged { name: format!("{directory}/{name}"), why, moved_to });
                }
            }
        }
        good.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((good, damaged))
    }
}
