//! Opening a store: rights, lock, version, database, and what an earlier run left lying about.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error, Store, backup,
    database::Database,
    disk::{self, Sync},
    error::During,
    layout::{DIRECTORIES, Layout},
    lock::Lock,
    reserve::Reserve,
    state::State,
    store::{Parts, Shared},
    sweeper,
};

/// The newest schema of the files below the root that this program knows.
const SCHEMA: u32 = 1;

/// The database was lost or damaged and has been rebuilt from the files of the images.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// What was wrong.
    pub why: String,
    /// Where the damaged file is now; `None`: there was none.
    pub moved_to: Option<PathBuf>,
    /// How many images were found again.
    pub images: usize,
}

impl Store {
    /// Opens the store below `root`, or makes one.
    ///
    /// Nothing is freed until [`Store::gc`] was called once: pin what is needed before.
    ///
    /// # Errors
    /// If another process has it open, it belongs to somebody else, a newer creel wrote it, or the disk fails.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let layout = Layout::new(root.into());
        make_root(&layout.root)?;
        let lock = Lock::take(&layout.lock(), &layout.root)?;
        check_version(&layout)?;
        for name in DIRECTORIES {
            disk::make_dir(&layout.at(name), 0o700)?;
        }
        let (broom, waiting) = sweeper::broom();
        for path in disk::list(&layout.at("ingest"))? {
            crate::remove::to_trash(&path, &layout)?;
        }
        for path in disk::list(&layout.trash())? {
            broom.delete(path);
        }
        let reserve = Reserve::at(&layout.reserve());
        let (database, state, rebuilt) = reserve.lend(|| open_database(&layout))?;
        reserve.fill();
        let root = layout.root.clone();
        let shared = Arc::new(Shared::new(Parts { layout, broom, reserve, database, state, lock }));
        let sweeper = Some(waiting.run(shared.clone()).during("start the sweeper of", &root)?);
        Ok(Self { shared, sweeper, rebuilt })
    }
}

/// R34: only root may even look inside, whatever the umask was.
fn make_root(root: &Path) -> Result<(), Error> {
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).during("mkdir", parent)?;
    }
    match fs::metadata(root) {
        Ok(found) if !found.is_dir() => return Err(Error::NotADirectory(root.to_owned())),
        Ok(found) => {
            let expected = rustix::process::geteuid().as_raw();
            if found.uid() != expected {
                return Err(Error::Owner { root: root.to_owned(), found: found.uid(), expected });
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("stat", root, e)),
    }
    disk::make_dir(root, 0o700)
}

fn check_version(layout: &Layout) -> Result<(), Error> {
    let path = layout.version();
    let Some(bytes) = disk::read(&path, 4096)? else {
        // The directory of temporary files is made after the version is known; the root is on the same file system.
        let temporary = layout.at("version.new");
        disk::unlink(&temporary)?;
        return disk::write(&path, &temporary, format!("{SCHEMA}\n").as_bytes(), Sync::Now);
    };
    let found = String::from_utf8_lossy(&bytes).trim().chars().take(40).collect::<String>();
    match found.parse::<u32>() {
        Ok(version) if version <= SCHEMA => Ok(()),
        _ => Err(Error::Schema { root: layout.root.clone(), found, known: SCHEMA }),
    }
}

fn open_database(layout: &Layout) -> Result<(Database, State, Option<Rebuilt>), Error> {
    let path = layout.database();
    let mut moved_to = None;
    let mut why = "the database was not there".to_owned();
    if path.exists() {
        match Database::open(&path) {
            Ok((database, state)) => return Ok((database, state, None)),
            Err(e) if Database::is_damage(&e) => {
                let source = std::error::Error::source(&e).map_or_else(String::new, |cause| format!(": {cause}"));
                why = format!("{e}{source}");
                let aside = layout.quarantine("images.redb");
                disk::rename(&path, &aside)?;
                moved_to = Some(aside);
            }
            Err(e) => return Err(e),
        }
    }
    let (database, state) = rebuild(layout)?;
    let images = state.images.len();
    let rebuilt = (moved_to.is_some() || images > 0).then_some(Rebuilt { why, moved_to, images });
    Ok((database, state, rebuilt))
}

/// A new database gets its name only when everything is in it: a crash in between must not leave an empty one, which
/// would say that there are no images.
fn rebuild(layout: &Layout) -> Result<(Database, State), Error> {
    let (path, new) = (layout.database(), layout.at("images.redb.new"));
    disk::unlink(&new)?;
    let (mut database, mut state) = Database::open(&new)?;
    let change = backup::rebuild(layout)?;
    database.commit(&change)?;
    state.apply(&change);
    disk::rename(&new, &path)?;
    disk::sync_parent(&path)?;
    database.moved(&path);
    Ok((database, state))
}
