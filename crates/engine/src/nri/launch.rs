//! A pre-installed plugin: a program with one end of a socket as its descriptor 3.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

use model::{ErrorKind, Signal};
use sys::process::{Process, Program, Session, spawn};
use tokio::net::UnixStream;

use crate::error::{About, Error, Step};

/// How often a plugin that is to end is looked after.
const LOOK: Duration = Duration::from_millis(50);

/// Longest first line of a script (execve(2)).
const LONGEST_LINE: u64 = 256;

/// Its process.
#[derive(Debug)]
pub(super) struct Launched(Process);

impl Launched {
    /// Starts it. What it writes to its standard error is in the daemon's log.
    pub(super) fn start(path: &Path, index: &str, name: &str) -> Result<(UnixStream, Self), Error> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().step(About::Engine, "make a plugin's socket")?;
        ours.set_nonblocking(true).step(About::Engine, "make a plugin's socket")?;
        let stream = UnixStream::from_std(ours).step(About::Engine, "make a plugin's socket")?;
        let (program, before) = interpreter(path).step(About::Engine, "read the plugin")?;
        let executable = File::open(program).step(About::Engine, "open the plugin")?;
        let text = |bytes: &[u8]| {
            let nul = |_| Error::new(ErrorKind::InvalidArgument, About::Engine, format!("plugin {}: a NUL byte", path.display()));
            CString::new(bytes).map_err(nul)
        };
        let mut argv = before.iter().map(|word| text(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        argv.push(text(path.as_os_str().as_bytes())?);
        let env = [
            text(format!("NRI_PLUGIN_NAME={name}").as_bytes())?,
            text(format!("NRI_PLUGIN_IDX={index}").as_bytes())?,
            c"NRI_PLUGIN_SOCKET=3".into(),
            c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        ];
        let stderr = io::stderr();
        let program = Program {
            executable: executable.as_fd(),
            argv: &argv,
            env: &env,
            stdio: [None, None, Some(stderr.as_fd())],
            fds: &[theirs.as_fd()],
            session: Session::Own,
        };
        let process = spawn(&program).step(About::Engine, "start the plugin")?;
        Ok((stream, Self(process)))
    }

    /// Ends it, for good after `grace`; collects it.
    pub(super) async fn end(self, grace: Duration) {
        let end = tokio::time::Instant::now() + grace;
        let mut asked = false;
        loop {
            if !matches!(sys::process::try_wait(&self.0), Ok(None)) {
                return;
            }
            let signal = if tokio::time::Instant::now() >= end { Signal::KILL } else { Signal::TERM };
            if !asked || signal == Signal::KILL {
                // It may have ended at this moment.
                sys::process::signal(&self.0, signal).ok();
                asked = true;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The program that runs the plugin, and the words before the plugin's path: a script's interpreter, as execve(2) finds it.
/// The kernel itself cannot, because the script's descriptor is closed when the interpreter wants to open it.
fn interpreter(path: &Path) -> io::Result<(PathBuf, Vec<String>)> {
    let mut head = Vec::new();
    File::open(path)?.take(LONGEST_LINE).read_to_end(&mut head)?;
    let line = head.strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
    let Some(line) = line else { return Ok((path.to_owned(), Vec::new())) };
    let line = String::from_utf8_lossy(line).trim().to_owned();
    let (program, argument) = line.split_once([' ', '\t']).map_or((line.as_str(), ""), |(program, rest)| (program, rest.trim()));
    let words = [program, argument].into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Ok((PathBuf::from(program), words))
}

impl Drop for Launched {
    fn drop(&mut self) {
        if matches!(sys::process::try_wait(&self.0), Ok(None)) {
            sys::process::signal(&self.0, Signal::KILL).ok();
        }
    }
}
