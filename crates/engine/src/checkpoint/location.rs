//! Where a checkpoint goes: made under another name or in an empty directory, and removed again unless it became whole. What
//! is under way is written down in the run directory, so that the next daemon removes what a dead one left.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{ContainerId, ErrorKind, PodId};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sys::path::is_normal;

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
};

/// Something that is being made.
#[derive(Debug)]
pub(super) struct Work {
    /// Its line in the journal.
    note: PathBuf,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// A file under a name of ours.
    File(PathBuf),
    /// What is in a directory of the caller's.
    Contents(PathBuf),
    /// A pod.
    Pod(PodId),
}

impl What {
    fn line(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Contents(path) => format!("contents {}", path.display()),
            Self::Pod(id) => format!("pod {id}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "file" => Some(Self::File(rest.into())),
            "contents" => Some(Self::Contents(rest.into())),
            "pod" => rest.parse().ok().map(Self::Pod),
            _ => None,
        }
    }

    fn undo(&self) -> io::Result<()> {
        let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
        match self {
            Self::File(path) => fs::remove_file(path).or_else(gone),
            Self::Contents(path) => empty(path).or_else(gone),
            Self::Pod(_) => Ok(()),
        }
    }
}

/// Removes what is in a directory; links are not followed.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

impl Work {
    fn note(inner: &Inner, what: What) -> Result<Self, Error> {
        let journal = journal(inner);
        let name: String = crate::random_id()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let note = journal.join(name);
        let written =
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&journal).and_then(|()| fs::write(&note, what.line()));
        written.step(About::Engine, "write down what is being made")?;
        Ok(Self { note, what })
    }

    /// A pod that is being restored.
    pub(super) fn pod(inner: &Inner, id: PodId) -> Result<Self, Error> {
        Self::note(inner, What::Pod(id))
    }

    /// It is whole, or no longer ours.
    pub(super) fn done(self) {
        let _ = fs::remove_file(&self.note);
    }

    /// Takes away what was made of it.
    pub(super) fn undo(self) {
        match self.what.undo() {
            Ok(()) => self.done(),
            // The next start tries again.
            Err(error) => tracing::warn!(what = self.what.line(), %error, "left behind"),
        }
    }
}

fn journal(inner: &Inner) -> PathBuf {
    inner.config.run.join("checkpoints")
}

fn invalid(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, About::Engine, format!("{}: {why}", path.display()))
}

/// A file that appears under its name when it is whole.
#[derive(Debug)]
pub(super) struct NewFile {
    place: PathBuf,
    temporary: PathBuf,
    work: Work,
}

impl NewFile {
    /// A file that nobody else can read, beside where it is to be.
    ///
    /// # Errors
    /// There is something at its place, or no directory.
    pub(super) fn create(inner: &Inner, place: PathBuf) -> Result<(Self, fs::File), Error> {
        let text = place.to_str().ok_or_else(|| invalid(&place, "not UTF-8"))?;
        let name = place.file_name().and_then(|name| name.to_str());
        let (true, Some(name)) = (is_normal(text), name) else {
            return Err(invalid(&place, "not an absolute path in normal form"));
        };
        if fs::symlink_metadata(&place).is_ok() {
            return Err(taken(&place));
        }
        let random: String = crate::random_id()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        // Not longer than the name that is known to fit.
        let temporary = place.with_file_name(format!(
            ".creel-{random}-{}",
            &name[name.len().saturating_sub(40)..].replace(|c: char| !c.is_ascii(), "_")
        ));
        let work = Work::note(inner, What::File(temporary.clone()))?;
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => Ok((Self { place, temporary, work }, file)),
            Err(error) => {
                work.done();
                Err(error).step(About::Engine, "make the archive")
            }
        }
    }

    /// Gives it its name, if nobody else has it.
    pub(super) fn publish(self) -> Result<(), Error> {
        match renameat_with(CWD, &self.temporary, CWD, &self.place, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.work.done();
                Ok(())
            }
            Err(errno) => {
                self.work.undo();
                if errno == sys::Errno::EXIST {
                    return Err(taken(&self.place));
                }
                Err(io::Error::from(errno)).step(About::Engine, "rename the archive")
            }
        }
    }

    /// Takes it away.
    pub(super) fn undo(self) {
        self.work.undo();
    }
}

fn taken(place: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, About::Engine, format!("{}: exists already", place.display()))
}

/// A caller's directory, which is to be empty: what is put into it.
pub(super) fn into_empty(inner: &Inner, path: &Path) -> Result<Work, Error> {
    if !path.to_str().is_some_and(is_normal) {
        return Err(invalid(path, "not an absolute path in normal form"));
    }
    let directory = fs::symlink_metadata(path).step(About::Engine, "look at the output directory")?;
    if !directory.is_dir() {
        return Err(invalid(path, "not a directory"));
    }
    let mut entries = fs::read_dir(path).step(About::Engine, "list the output directory")?;
    if entries.next().is_some() {
        return Err(Error::new(ErrorKind::FailedPrecondition, About::Engine, format!("{}: is not empty", path.display())));
    }
    Work::note(inner, What::Contents(path.to_owned()))
}

impl Inner {
    /// Takes away what an earlier daemon was making when it died; pods among it are answered, for the engine to remove.
    fn sweep_checkpoints(&self) -> Vec<PodId> {
        let mut pods = Vec::new();
        // There is one daemon for a root directory: whose these were is gone.
        let _ = fs::remove_dir_all(scratch(self));
        let Ok(notes) = fs::read_dir(journal(self)) else { return pods };
        for note in notes.flatten().map(|entry| entry.path()) {
            let what = fs::read_to_string(&note).ok().and_then(|line| What::parse(&line));
            if let Some(What::Pod(id)) = what {
                pods.push(id);
            }
            match what {
                Some(what) => Work { note, what }.undo(),
                None => drop(fs::remove_file(note)),
            }
        }
        pods
    }
}

/// A directory of ours, for one container's images. Not with its writable layer, whose size may be limited. Removed when
/// dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// An empty one.
    pub(crate) fn new(inner: &Inner, id: ContainerId) -> Result<Self, Error> {
        let path = scratch(inner).join(id.to_string());
        let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
        fs::remove_dir_all(&path).or_else(gone).step(id, "clear the work directory")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).step(id, "make the work directory")?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // The next start tries again.
            tracing::warn!(path = %self.0.display(), %error, "left behind");
        }
    }
}

fn scratch(inner: &Inner) -> PathBuf {
    inner.config.root.join("checkpoints")
}

impl Inner {
    /// After a start: nothing is left of what was being made.
    pub(crate) async fn recover_checkpoints(self: &Arc<Self>) {
        let inner = self.clone();
        for pod in blocking(move || inner.sweep_checkpoints()).await {
            match self.remove_pod(pod).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(error = error.chain(), "remove a half-restored pod")
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back() {
        for what in [What::File("/a b/c".into()), What::Contents("/x".into()), What::Pod(PodId::from_bytes([3; 32]))] {
            assert_eq!(What::parse(&what.line()), Some(what));
        }
        assert_eq!((What::parse("rm /"), What::parse(""), What::parse("pod x")), (None, None, None));
    }

    #[test]
    fn only_the_contents_of_a_callers_directory_go() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        What::Contents(inside.clone()).undo().unwrap();
        assert_eq!((fs::read_dir(&inside).unwrap().count(), outside.join("keep").exists()), (0, true));
        What::Contents(dir.path().join("gone")).undo().unwrap();
    }
}
