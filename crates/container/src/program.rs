//! The program itself: found in the container's PATH by trying to run it, so that nothing can change between the finding
//! and the running.

use std::ffi::CString;

use model::plan::ProcessPlan;
use sys::{Errno, process};

use crate::error::{Failure, Reason, Step, refuse, words};

/// Where programs are looked for if the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that execve(2) wants, made before anything irrevocable is done.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    pub(crate) fn new(plan: &ProcessPlan) -> Step<Self> {
        let Some(name) = plan.args.first().filter(|name| !name.is_empty()) else {
            return refuse("program", "no command is given");
        };
        let no_nul = |bytes: &[u8], what: &str| match CString::new(bytes) {
            Ok(string) => Ok(string),
            Err(_) => refuse(what, "contains a NUL byte"),
        };
        let argv: Vec<CString> = plan.args.iter().map(|arg| no_nul(arg.as_bytes(), "argument")).collect::<Step<_>>()?;
        let env: Vec<CString> = plan.env.iter().map(|entry| no_nul(entry, "environment")).collect::<Step<_>>()?;
        if env.iter().any(|entry| !entry.as_bytes().iter().skip(1).any(|byte| *byte == b'=')) {
            return refuse("environment", "an entry is not NAME=value");
        }
        let candidates = if name.contains('/') {
            vec![no_nul(name.as_bytes(), "argument")?]
        } else {
            let path = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
            let directories = path.unwrap_or(DEFAULT_PATH.as_bytes()).split(|byte| *byte == b':');
            let join = |directory: &[u8]| {
                let directory = if directory.is_empty() { b"." } else { directory };
                no_nul(&[directory, b"/", name.as_bytes()].concat(), "PATH")
            };
            directories.map(join).collect::<Step<_>>()?
        };
        Ok(Self { name: name.clone(), candidates, argv, env })
    }

    /// A program of the host, by its path, with nothing in its environment but the usual PATH.
    pub(crate) fn of_host(args: &[String]) -> Step<Self> {
        let no_nul = |text: &str| CString::new(text).or_else(|_| refuse("argument", "contains a NUL byte"));
        let argv: Vec<CString> = args.iter().map(|arg| no_nul(arg)).collect::<Step<_>>()?;
        let Some((name, path)) = args.first().zip(argv.first().cloned()) else { return refuse("program", "no command is given") };
        Ok(Self { name: name.clone(), candidates: vec![path], argv, env: vec![no_nul(&format!("PATH={DEFAULT_PATH}"))?] })
    }

    /// A program by its path, with exactly these arguments and this environment.
    pub(crate) fn exactly(path: &str, args: &[String], env: &[String]) -> Step<Self> {
        let no_nul = |text: &str| CString::new(text).or_else(|_| refuse("program", "contains a NUL byte"));
        let list = |texts: &[String]| texts.iter().map(|text| no_nul(text)).collect::<Step<_>>();
        Ok(Self { name: path.to_owned(), candidates: vec![no_nul(path)?], argv: list(args)?, env: list(env)? })
    }

    /// Runs it. Comes back only with the reason why not, as execvp(3) would decide: a file that may not be run counts
    /// only if no other one is found.
    pub(crate) fn run(&self) -> Failure {
        let mut denied = None;
        for candidate in &self.candidates {
            match process::execve(candidate, &self.argv, &self.env) {
                Errno::NOENT | Errno::NOTDIR | Errno::NODEV => {}
                Errno::ACCESS => denied = Some(Errno::ACCESS),
                errno => return self.failure(errno),
            }
        }
        self.failure(denied.unwrap_or(Errno::NOENT))
    }

    fn failure(&self, errno: Errno) -> Failure {
        let (exit_code, text) = match errno {
            Errno::NOENT if !self.name.contains('/') => (127, "executable file not found in $PATH".to_owned()),
            Errno::NOENT => (127, words(errno)),
            Errno::ACCESS | Errno::PERM | Errno::ISDIR | Errno::NOEXEC => (126, words(errno)),
            errno => (128, words(errno)),
        };
        Failure { step: format!("exec {:?}", self.name), reason: Reason { text, errno: Some(errno) }, exit_code }
    }
}
