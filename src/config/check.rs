//! Which configurations make no sense.

use std::path::Path;

use super::{Config, Error, Handler, Network, Nri, Streaming};

/// The key that is wrong, and why.
type Wrong = (&'static str, String);

impl Config {
    pub(super) fn check(&self) -> Result<(), Error> {
        let checked = self.check_paths().and_then(|()| self.check_values()).and_then(|()| self.check_sections());
        checked.map_err(|(key, why)| Error::Value { key, why })
    }

    fn check_paths(&self) -> Result<(), Wrong> {
        self.cdi_spec_dirs.iter().try_for_each(|dir| absolute("cdi_spec_dirs", dir))?;
        self.hooks_dirs.iter().try_for_each(|dir| absolute("hooks_dirs", dir))?;
        absolute("root", &self.root)?;
        absolute("run", &self.run)?;
        absolute("socket", &self.socket)?;
        absolute("registry.certs_dir", &self.registry.certs_dir)?;
        if self.root.starts_with(&self.run) || self.run.starts_with(&self.root) {
            return Err(("run", "the run directory and the root directory cannot contain one another".into()));
        }
        // sun_path of unix(7), with its final NUL.
        if self.socket.as_os_str().len() > 107 {
            return Err(("socket", format!("{}: longer than 107 bytes", self.socket.display())));
        }
        let parent = self.cgroup_parent.as_str();
        let slice = parent.ends_with(".slice") && !parent.contains('/');
        if !parent.is_empty() && !slice && (!parent.starts_with('/') || parent.split('/').any(|part| part == "..")) {
            return Err(("cgroup_parent", format!("{parent}: neither an absolute path nor a slice")));
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), Wrong> {
        engine::image::Pinned::parse(&self.pinned_images).map_err(|why| ("pinned_images", why))?;
        if self.pids_limit < 1 {
            return Err(("pids_limit", format!("{}: less than 1", self.pids_limit)));
        }
        if self.max_requests < 8 {
            return Err(("max_requests", format!("{}: less than 8, which a kubelet alone needs", self.max_requests)));
        }
        let level = self.log_level.parse::<tracing_subscriber::filter::EnvFilter>();
        level.map(drop).map_err(|e| ("log_level", format!("{:?}: {e}", self.log_level)))
    }

    fn check_sections(&self) -> Result<(), Wrong> {
        self.nri.check()?;
        self.streaming.check()?;
        self.handlers.iter().try_for_each(|(name, handler)| handler.check(name))?;
        self.network.check()
    }
}

fn absolute(key: &'static str, path: &Path) -> Result<(), Wrong> {
    if path.is_absolute() { Ok(()) } else { Err((key, format!("{}: not an absolute path", path.display()))) }
}

impl Network {
    fn check(&self) -> Result<(), Wrong> {
        absolute("network.cni_conf_dir", &self.cni_conf_dir)?;
        absolute("network.cni_bin_dir", &self.cni_bin_dir)?;
        let bridge = &self.bridge;
        if bridge.len() > 15 || !bridge.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            let why = format!("{bridge:?}: not the name of an interface, which has up to 15 characters");
            return Err(("network.bridge", why));
        }
        Ok(())
    }
}

impl Handler {
    fn check(&self, name: &str) -> Result<(), Wrong> {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
        if engine::BUILT_IN.contains(&name) || name.len() > 63 || !name.bytes().all(fits) {
            return Err((
                "handlers",
                format!("{name:?}: not a name for a handler: lower case letters, digits, - and .; creel is the built-in one"),
            ));
        }
        if !self.runtime.is_absolute() || self.runtime.to_str().is_none() {
            return Err(("handlers", format!("{name}.runtime: {}: not an absolute path", self.runtime.display())));
        }
        if self.args.iter().any(|arg| arg.is_empty() || arg.contains('\0')) {
            return Err(("handlers", format!("{name}.args: an argument is empty or has a NUL")));
        }
        Ok(())
    }
}

impl Streaming {
    fn check(&self) -> Result<(), Wrong> {
        let address = self.address;
        if !address.ip().is_loopback() && !self.tls {
            let why = "not an address of loopback; without tls sessions are not encrypted, and a kubelet reaches them there";
            return Err(("streaming.address", format!("{address}: {why}")));
        }
        if address.ip().is_unspecified() {
            return Err((
                "streaming.address",
                format!("{address}: clients are given this address, so it has to be one of this machine"),
            ));
        }
        let (cert, key) = (self.tls_cert.as_os_str().is_empty(), self.tls_key.as_os_str().is_empty());
        if cert != key {
            return Err(("streaming.tls_cert", "a certificate needs its key (tls_key), and a key its certificate".into()));
        }
        if !cert && !self.tls {
            return Err(("streaming.tls", "a certificate is given, but tls is false".into()));
        }
        if self.idle_timeout == 0 {
            return Err(("streaming.idle_timeout", "0: no session could last".into()));
        }
        Ok(())
    }
}

impl Nri {
    fn check(&self) -> Result<(), Wrong> {
        absolute("nri.socket_path", &self.socket_path)?;
        absolute("nri.plugin_path", &self.plugin_path)?;
        absolute("nri.plugin_config_path", &self.plugin_config_path)?;
        // sun_path of unix(7), with what it is called while it is made.
        if self.socket_path.as_os_str().len() > 96 {
            return Err(("nri.socket_path", format!("{}: longer than 96 bytes", self.socket_path.display())));
        }
        for (key, seconds) in [
            ("nri.plugin_registration_timeout", self.plugin_registration_timeout),
            ("nri.plugin_request_timeout", self.plugin_request_timeout),
        ] {
            if !(1..=60).contains(&seconds) {
                return Err((key, format!("{seconds}: must be 1 to 60 seconds")));
            }
        }
        Ok(())
    }
}
