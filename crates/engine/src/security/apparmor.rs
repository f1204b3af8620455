//! AppArmor profiles: those that the node has loaded, and a default one of ours.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use model::container::AppArmorSpec;

use super::Error;

/// The default profile's name.
const DEFAULT: &str = "creel-default";
const SWITCH: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Compiling takes a fraction of a second, and some seconds where the machine is emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// AppArmor on this node.
#[derive(Debug)]
pub(super) struct AppArmor {
    enabled: bool,
    parser: Option<PathBuf>,
    /// Whether this daemon has loaded its default profile. One that an older daemon left is replaced.
    loaded: Mutex<bool>,
}

impl AppArmor {
    pub(super) fn detect() -> Self {
        let places = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
        let parser = places.iter().map(|dir| Path::new(dir).join("apparmor_parser")).find(|path| path.exists());
        let enabled = fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "Y");
        Self { enabled, parser, loaded: Mutex::default() }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn warning(&self) -> Option<String> {
        let unusable = self.enabled && self.parser.is_none() && !is_loaded(DEFAULT).unwrap_or(false);
        unusable.then(|| format!("containers without an AppArmor profile are unconfined: {}", Error::NoParser))
    }

    /// The profile of a container, loaded. Nothing said means the default, unless the container is privileged.
    pub(super) fn profile(&self, asked: Option<&AppArmorSpec>, privileged: bool) -> Result<Option<String>, Error> {
        match asked {
            Some(AppArmorSpec::Unconfined) => Ok(None),
            Some(AppArmorSpec::Localhost(name)) => self.localhost(name).map(Some),
            None | Some(AppArmorSpec::RuntimeDefault) if privileged || !self.enabled => Ok(None),
            None | Some(AppArmorSpec::RuntimeDefault) => match self.load_default() {
                // Who did not ask for it gets what there is; `creel info` says so.
                Err(Error::NoParser) if asked.is_none() => Ok(None),
                other => other.map(|()| Some(DEFAULT.to_owned())),
            },
        }
    }

    fn localhost(&self, name: &str) -> Result<String, Error> {
        match self.enabled {
            false => Err(Error::NoAppArmor(name.to_owned())),
            true if is_loaded(name)? => Ok(name.to_owned()),
            true => Err(Error::NotLoaded(name.to_owned())),
        }
    }

    fn load_default(&self) -> Result<(), Error> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been unloaded since (a reload of AppArmor removes what is in no file).
        if *loaded && is_loaded(DEFAULT)? {
            return Ok(());
        }
        match &self.parser {
            Some(parser) => load(parser, &default_profile(own_profile().as_deref(), abi()))?,
            None if is_loaded(DEFAULT)? => {}
            None => return Err(Error::NoParser),
        }
        *loaded = true;
        Ok(())
    }
}

fn is_loaded(name: &str) -> Result<bool, Error> {
    let text = fs::read_to_string(PROFILES).map_err(|e| Error::Profiles(PROFILES, e))?;
    Ok(has(&text, name))
}

/// One profile per line: its name, which may have blanks, and its mode in brackets.
fn has(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(loaded, _)| loaded == name))
}

/// The profile that confines this process.
fn own_profile() -> Option<String> {
    let files = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    text.trim_end_matches(['\n', '\0']).rsplit_once(" (").map(|(name, _)| name.to_owned())
}

/// Which of AppArmor's features the profile is about. Newer parsers take all that the kernel has if nothing is said, and
/// deny what the profile does not mention: user namespaces, io_uring, message queues.
fn abi() -> &'static str {
    if Path::new("/etc/apparmor.d/abi/3.0").exists() { "abi <abi/3.0>,\n" } else { "" }
}

/// The default profile. Containers may do everything but write to what steers the kernel, mount, and look into processes
/// that are not in the same profile; `daemon` is who else may signal them, besides unconfined processes.
fn default_profile(daemon: Option<&str>, abi: &str) -> String {
    let peers = ["unconfined", DEFAULT].into_iter().map(str::to_owned).chain(daemon.map(|name| format!("{name:?}")));
    let signals: String = peers.map(|peer| format!("  signal (receive) peer={peer},\n")).collect();
    let denied: String = DENIED.iter().map(|(path, access)| format!("  deny {path} {access},\n")).collect();
    format!(
        "{abi}profile {DEFAULT} flags=(attach_disconnected, mediate_deleted) {{
  file,
  network,
  capability,
  umount,
{signals}  signal (send) peer={DEFAULT},
  ptrace (read, readby, trace, tracedby) peer={DEFAULT},
  deny mount,
{denied}}}
"
    )
}

/// What nobody in a container touches, also where it is mounted writable by mistake or by a bug. Of /proc it may write what
/// is of a process, and of /proc/sys what its own namespaces have: net, host and domain name, message queues, semaphores and
/// shared memory. Of /sys it may write groups of processes.
const DENIED: [(&str, &str); 12] = [
    ("/proc/*", "wl"),
    ("/proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/**", "wklx"),
    ("/proc/{sysrq-trigger,kcore,kmem,mem}", "rwklx"),
    ("/proc/sys/{abi,crypto,debug,dev,user,vm}/**", "wklx"),
    ("/proc/sys/fs/{[^m]**,m[^q]**}", "wklx"),
    ("/proc/sys/kernel/{[^dhms]**,d[^o]**,h[^o]**,m[^s]**,s[^eh]**}", "wklx"),
    ("/proc/sys/kernel/{hotplug,seccomp/**}", "wklx"),
    ("/sys/[^f]**", "wklx"),
    ("/sys/f[^s]**", "wklx"),
    ("/sys/fs/{[^c]**,c[^g]**}", "wklx"),
    ("/sys/{firmware,kernel/security}/**", "rwklx"),
    ("/sys/devices/virtual/powercap/**", "rwklx"),
];

/// Compiles a profile and gives it to the kernel, in place of one of the same name (apparmor_parser(8)).
fn load(parser: &Path, profile: &str) -> Result<(), Error> {
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::RunParser)?;
    let mut write = || child.stdin.take().map_or(Ok(()), |mut input| input.write_all(profile.as_bytes()));
    // A parser that ends without reading says why itself.
    let written = write();
    let until = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().map_err(Error::RunParser)? {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(Error::RunParser)?;
                return Err(Error::ParserDeadline(LIMIT));
            }
        }
    };
    if status.success() {
        return written.map_err(Error::RunParser);
    }
    let mut said = String::new();
    if let Some(output) = child.stderr.take() {
        output.take(2000).read_to_string(&mut said).map_err(Error::RunParser)?;
    }
    Err(Error::Parser(format!("{status}: {}", said.trim())))
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
mod tests {
    use super::*;

    fn absent() -> AppArmor {
        AppArmor { enabled: false, parser: None, loaded: Mutex::default() }
    }

    #[test]
    fn where_it_is_off_only_a_named_profile_is_an_error() {
        for privileged in [false, true] {
            for asked in [None, Some(AppArmorSpec::RuntimeDefault), Some(AppArmorSpec::Unconfined)] {
                assert_eq!(absent().profile(asked.as_ref(), privileged).unwrap(), None);
            }
            let named = AppArmorSpec::Localhost("mine".into());
            assert!(matches!(absent().profile(Some(&named), privileged), Err(Error::NoAppArmor(name)) if name == "mine"));
        }
    }

    #[test]
    fn loaded_profiles_are_found_by_their_whole_name() {
        let list = "/usr/bin/man (enforce)\nmy profile (complain)\nx (y) (unconfined)\n";
        for (name, found) in
            [("/usr/bin/man", true), ("my profile", true), ("x (y)", true), ("my", false), ("", false), ("x", false)]
        {
            assert_eq!(has(list, name), found, "{name}");
        }
    }

    #[test]
    fn the_default_profile_denies_what_steers_the_kernel() {
        let text = default_profile(None, "");
        assert!(text.starts_with("profile creel-default flags=(attach_disconnected, mediate_deleted) {\n"));
        assert!(text.ends_with("}\n") && text.lines().filter(|l| l.starts_with("  ")).all(|line| line.ends_with(',')), "{text}");
        for rule in ["deny mount,", "signal (receive) peer=unconfined,", "deny /proc/* wl,", "deny /sys/[^f]** wklx,"] {
            assert!(text.contains(rule), "{rule}");
        }
        assert!(default_profile(Some("/usr/bin/creeld"), abi()).contains("signal (receive) peer=\"/usr/bin/creeld\",\n"));
    }

    #[test]
    fn the_real_parser_takes_the_default_profile() {
        let Some(parser) = AppArmor::detect().parser else {
            eprintln!("SKIPPED: no apparmor_parser here");
            return;
        };
        let mut command = Command::new(parser);
        let mut child = command.args(["--skip-kernel-load", "--skip-cache"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(default_profile(Some("/usr/bin/creeld"), abi()).as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_parser_that_refuses_says_why_and_one_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        load(&script("good", "cat >/dev/null"), "profile x {}").unwrap();
        let error = load(&script("bad", "cat >/dev/null; echo line 3: no >&2; exit 1"), "x").unwrap_err();
        assert!(error.to_string().contains("exit status: 1: line 3: no"), "{error}");
        assert!(
            matches!(load(&dir.path().join("none"), "x"), Err(Error::RunParser(e)) if e.kind() == std::io::ErrorKind::NotFound)
        );
    }
}
