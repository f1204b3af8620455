//! From a configuration to a daemon that serves, and back.

use std::{io, io::IsTerminal, os::fd::OwnedFd, time::Duration};

use engine::Engine;
use net::bridge::{BridgeConfig, Subnets};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{self, Config, NetworkKind},
    server::{self, Services},
    sessions::Sessions,
    socket::{self, Socket},
};

/// Threads that run requests. Work that blocks has its own.
const WORKERS: usize = 2;
/// Threads for work that blocks, at most; each goes again after ten seconds without work.
const BLOCKING: usize = 128;
/// Arenas of the allocator.
const ARENAS: i32 = 2;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("blockio_config")]
    BlockIo(#[from] crate::block_io::Error),
    #[error("take systemd's sockets")]
    Activation(#[source] io::Error),
    #[error("start threads")]
    Threads(#[source] io::Error),
    #[error("find the supervisor's program")]
    Shim(#[source] io::Error),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error("{0}")]
    Engine(String),
    #[error(transparent)]
    Streaming(#[from] streaming::Error),
    #[error("wait for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn daemon(config: Config) -> Result<(), Error> {
    // First of all: nothing else is open yet.
    let passed = sys::activation::take_listen_fds().map_err(|e| Error::Activation(e.into()))?;
    sys::malloc::limit_arenas(ARENAS);
    log_to_stderr(&config.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_name("creeld")
        .enable_all()
        .build()
        .map_err(Error::Threads)?;
    let result = runtime.block_on(serve(config, passed));
    // Blocking work that is still going on finds its half-done things undone at the next start.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// journald adds times itself.
fn log_to_stderr(filter: &str) {
    let filter = EnvFilter::new(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init()
    } else {
        builder.init()
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%panic, %backtrace, "bug");
    }));
}

async fn serve(config: Config, passed: Vec<OwnedFd>) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let _lock = socket::lock(&config.run)?;
    let engine_config = engine_config(&config)?;
    let engine = Engine::open(engine_config).await.map_err(|e| Error::Engine(e.chain()))?;
    let streaming = streaming::Server::start(streaming_options(&config.streaming)?, Sessions(engine.clone())).await?;
    // Only now: whoever can connect finds every pod listed.
    let socket = Socket::listen(&config.socket, &config.socket_group, passed.into_iter().next())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %config.socket.display(), root = %config.root.display(), "ready");
    tell_systemd(NotifyState::Ready);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; containers run on");
        tell_systemd(NotifyState::Stopping);
    };
    let served = server::serve(socket, Services { engine: engine.clone(), streaming }, config.max_requests, stop).await;
    engine.shutdown().await;
    Ok(served?)
}

/// Not being started by systemd is no error.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "notify systemd");
    }
}

fn engine_config(config: &Config) -> Result<engine::Config, Error> {
    Ok(engine::Config {
        root: config.root.clone(),
        run: config.run.clone(),
        cgroup_driver: match config.cgroup_driver {
            crate::config::CgroupDriver::Auto => None,
            crate::config::CgroupDriver::Cgroupfs => Some(engine::CgroupDriver::Cgroupfs),
            crate::config::CgroupDriver::Systemd => Some(engine::CgroupDriver::Systemd),
        },
        cgroup_parent: config.cgroup_parent.clone(),
        shim: config.shim_program().map_err(Error::Shim)?,
        pinned_images: config.pinned_images.clone(),
        cdi_spec_dirs: config.cdi_spec_dirs.clone(),
        hooks_dirs: config.hooks_dirs.clone(),
        certs_dir: config.registry.certs_dir.clone(),
        plain_http: config.registry.plain_http.clone(),
        network: match config.network.kind {
            NetworkKind::Cni => net::Config::Cni(net::cni::CniConfig {
                conf_dir: config.network.cni_conf_dir.clone(),
                bin_dirs: vec![config.network.cni_bin_dir.clone()],
                ..net::cni::CniConfig::default()
            }),
            NetworkKind::Bridge => net::Config::Bridge(bridge_config(config)),
        },
        criu: config.checkpoint.criu.clone(),
        pids_limit: config.pids_limit,
        shm_size: config.shm_size,
        nri: config.nri.engine(),
        handlers: config.handlers.iter().map(|(name, handler)| (name.clone(), oci_handler(handler))).collect(),
        writable_layer_limit: Some(config.writable_layer_limit).filter(|bytes| *bytes > 0),
        build_cache_limit: Some(config.build_cache_limit).filter(|bytes| *bytes > 0),
        block_io: crate::block_io::read(&config.blockio_config)?,
    })
}

fn oci_handler(handler: &config::Handler) -> engine::OciHandler {
    engine::OciHandler { runtime: handler.runtime.clone(), args: handler.args.clone() }
}

fn streaming_options(config: &config::Streaming) -> Result<streaming::Options, streaming::Error> {
    let tls = match (config.tls, config.tls_cert.as_os_str().is_empty()) {
        (false, _) => None,
        (true, true) => Some(streaming::Tls::self_signed()?),
        (true, false) => Some(streaming::Tls::from_files(&config.tls_cert, &config.tls_key)?),
    };
    Ok(streaming::Options { address: config.address, tls, idle: Duration::from_secs(config.idle_timeout) })
}

/// Whatever is not said is derived from the root directory: two daemons with two roots do not meet.
fn bridge_config(config: &Config) -> BridgeConfig {
    let mut bridge = BridgeConfig::for_instance(&config.root.to_string_lossy());
    if !config.network.bridge.is_empty() {
        bridge.bridge.clone_from(&config.network.bridge);
    }
    if !config.network.subnets.is_empty() {
        bridge.subnets = Subnets::Fixed(config.network.subnets.iter().map(|cidr| cidr.0).collect());
    }
    bridge
}
