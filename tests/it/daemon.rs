//! A daemon of a test's own: own root and run directories, own socket, own cgroup parent, own bridge.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use api::{
    creel::{self as own, containers_client::ContainersClient},
    runtime::{self as cri, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};
use tonic::transport::{Channel, Endpoint};

use crate::check;

/// Programs under test.
pub fn bin(name: &str) -> PathBuf {
    let dir = std::env::var_os("CREEL_BIN").expect("CREEL_BIN is not set: run hack/test");
    Path::new(&dir).join(name)
}

/// What the programs are tested with.
pub fn cache(name: &str) -> PathBuf {
    let dir = std::env::var_os("CREEL_CACHE").expect("CREEL_CACHE is not set: run hack/test");
    Path::new(&dir).join(name)
}

/// OCI runtimes that handlers are tested with.
pub const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Where Debian's packages put them.
pub fn oci_runtime(name: &str) -> PathBuf {
    Path::new("/usr/bin").join(name)
}

/// The handler of every pod whose test asks for none: the whole suite can be run with another one.
pub fn handler() -> String {
    std::env::var("CREEL_TEST_HANDLER").unwrap_or_default()
}

fn handlers() -> String {
    let section = |name: &&str| format!("[handlers.{name}]\nruntime = \"{}\"\n", oci_runtime(name).display());
    RUNTIMES.iter().map(section).collect()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A daemon and what belongs to it.
pub struct Daemon {
    /// Where everything of it is.
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    /// The path of its cgroup parent.
    pub cgroup: String,
    /// Its bridge.
    pub bridge: String,
    root: PathBuf,
}

impl Daemon {
    /// A running daemon with the built-in bridge.
    pub async fn start() -> Self {
        Self::with(&[], &[]).await
    }

    /// A running daemon with further flags and environment.
    pub async fn with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut daemon = Self::prepare(flags, env);
        daemon.run().await;
        daemon
    }

    /// A daemon that does not run yet.
    pub fn prepare(flags: &[&str], env: &[(&str, &str)]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("creel-it-").tempdir_in(work_dir()).expect("temporary directory");
        let name = format!("creelit{}n{number}", std::process::id());
        let (cgroup, parent) = match systemd() {
            true => (format!("/{name}.slice"), format!("{name}.slice")),
            false => (format!("/{name}"), format!("/{name}")),
        };
        let bridge = format!("cit{}n{number}", std::process::id() % 100_000);
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(dir.path().join("certs.d")).unwrap();
        let config = format!(
            "[network]\nbridge = \"{bridge}\"\nsubnets = [\"10.{}.{}.0/24\", \"fd00:{:x}:{number:x}::/64\"]\n",
            100 + (std::process::id() + number / 250) % 100,
            number % 250,
            std::process::id() % 65_536,
        );
        std::fs::write(dir.path().join("config.toml"), config + &handlers()).unwrap();
        let mut args = vec!["--config".into(), at("config.toml"), "--run".into(), at("run")];
        args.extend(["--socket".into(), at("run/creel.sock"), "--cgroup-parent".into(), parent]);
        args.extend(["--certs-dir".into(), at("certs.d")]);
        if !flags.contains(&"--network") {
            args.extend(["--network".into(), "bridge".into()]);
        }
        let root = match flags.iter().position(|flag| *flag == "--root") {
            Some(at) => PathBuf::from(flags[at + 1]),
            None => {
                args.extend(["--root".into(), at("root")]);
                dir.path().join("root")
            }
        };
        args.extend(flags.iter().map(ToString::to_string));
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { dir, child: None, args, env, cgroup, bridge, root }
    }

    /// Starts the daemon and waits until it answers.
    pub async fn run(&mut self) {
        self.spawn();
        self.wait_ready().await;
    }

    /// Starts the daemon.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(bin("creeld"));
        command.args(&self.args).envs(&self.env).env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().expect("creeld starts"));
    }

    /// The environment of the next start.
    pub fn set_env(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.env.insert(key.to_owned(), value.to_owned()),
            None => self.env.remove(key),
        };
    }

    pub async fn wait_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(mut client) = self.try_runtime().await
                && client.version(cri::VersionRequest { version: "0.1.0".into() }).await.is_ok()
            {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("creeld ended: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "creeld does not answer\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    /// SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The daemon ended by itself (a failpoint).
    pub fn wait_death(&mut self) {
        let mut child = self.child.take().expect("runs");
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "creeld still lives");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM; the containers run on.
    pub fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("creeld did not end within 20 s of SIGTERM\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A parent below its own for a pod to name: a path, or a slice.
    pub fn parent_below(&self, name: &str) -> String {
        match self.cgroup.trim_start_matches('/').strip_suffix(".slice") {
            Some(slice) => format!("{slice}-{name}.slice"),
            None => format!("{}/{name}", self.cgroup),
        }
    }

    /// The path of the cgroup of a pod that named no parent.
    pub fn cgroup_of(&self, pod: &str) -> String {
        if systemd() { format!("{}/creel-{pod}.scope", self.cgroup) } else { format!("{}/{pod}", self.cgroup) }
    }

    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("creel.sock")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("creeld.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Makes the daemon reach `host` at a plain registry on loopback.
    pub fn mirror(&self, host: &str, port: u16) {
        let dir = self.dir.path().join("certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let text = format!("server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let uri = format!("unix:{}", self.socket().display());
        Endpoint::try_from(uri).unwrap().connect_timeout(Duration::from_secs(60)).connect().await
    }

    async fn try_runtime(&self) -> Result<RuntimeServiceClient<Channel>, tonic::transport::Error> {
        Ok(RuntimeServiceClient::new(self.channel().await?).max_decoding_message_size(16 << 20))
    }

    pub async fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.try_runtime().await.expect("connect")
    }

    /// Containers of people.
    pub async fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel().await.expect("connect")).max_decoding_message_size(16 << 20)
    }

    pub async fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel().await.expect("connect")).max_decoding_message_size(16 << 20)
    }

    /// Runs crictl against this daemon.
    pub fn crictl(&self, args: &[&str]) -> Output {
        let endpoint = format!("unix://{}", self.socket().display());
        let config = self.dir.path().join("crictl.yaml");
        std::fs::write(&config, "").unwrap();
        Command::new(cache("bin/crictl"))
            .args(["--config", config.to_str().unwrap(), "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint])
            .args(args)
            .output()
            .expect("crictl runs")
    }

    /// Runs crictl, which must succeed; answers its output.
    pub fn crictl_ok(&self, args: &[&str]) -> String {
        let output = self.crictl(args);
        assert!(output.status.success(), "crictl {args:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs creel against this daemon.
    pub fn creel(&self, args: &[&str]) -> Output {
        Command::new(bin("creel")).args(args).env("CREEL_SOCKET", self.socket()).output().expect("creel runs")
    }

    /// Runs creel, which must succeed; answers its output.
    pub fn creel_ok(&self, args: &[&str]) -> String {
        let output = self.creel(args);
        assert!(output.status.success(), "creel {args:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Removes every pod, ends the daemon, and lets the checker look for what is left.
    pub async fn finish(mut self) {
        if self.child.is_none() {
            self.run().await;
        }
        let mut runtime = self.runtime().await;
        for pod in runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items {
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.id };
            runtime.remove_pod_sandbox(request).await.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        }
        let mut containers = self.containers().await;
        let all = own::ListContainersRequest { all: true, ..Default::default() };
        for container in containers.list(all).await.unwrap().into_inner().containers {
            let request = own::RemoveContainerRequest { container: container.id, force: true, volumes: true };
            containers.remove(request).await.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
        }
        check::nothing_left(&self);
        self.terminate();
        check::nothing_runs(&self);
        check::store_is_sound(&self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failed test: no checker, but nothing may run on either.
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        check::kill_everything(self);
        if std::thread::panicking() {
            eprintln!("--- creeld.log\n{}", self.log());
        }
    }
}

/// Whether the tests run with systemd's cgroup driver (hack/test-vm).
pub fn systemd() -> bool {
    std::env::var_os("CREEL_CGROUP_DRIVER").is_some_and(|driver| driver == "systemd")
}

/// Where daemons live: a file system that takes overlay's upper directories.
fn work_dir() -> PathBuf {
    std::env::var_os("CREEL_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}
