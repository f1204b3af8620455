//! The flags of `creel run` and `creel create`, and those of them that `creel update` has too.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::args::{Creds, PullWhen};

/// Limits.
#[derive(Args, Debug, Default)]
pub(crate) struct LimitFlags {
    /// Most memory, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Most memory and swap together; -1: no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Memory that is kept for it
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<String>,
    /// Most processors, for example 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Share of the processors, where others want them too
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<i64>,
    /// Period of the processors' quota
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<i64>,
    /// Quota of the processors' time in a period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Which processors, for example 0-2,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Which memory nodes
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Most processes; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
}

/// Everything about a new container.
#[derive(Args, Debug)]
pub(crate) struct CreateFlags {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Name of the container; if not given, one is made up
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Keep its standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it has ended, with its anonymous volumes
    #[arg(long)]
    pub(crate) rm: bool,
    /// When it starts again by itself: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: String,
    #[command(flatten)]
    pub(crate) program: ProgramFlags,
    #[command(flatten)]
    pub(crate) files: FileFlags,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) security: SecurityFlags,
    /// Write the container's id into a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// The image's platform, OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// When the image is pulled
    #[arg(long, value_enum, default_value_t = PullWhen::Missing)]
    pub(crate) pull: PullWhen,
    /// Say nothing of the pull
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) creds: Creds,
    /// Name or id of the image, and a command; the image's if not given
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "IMAGE [COMMAND [ARGUMENT]...]", add = super::complete::images())]
    line: Vec<String>,
}

impl CreateFlags {
    /// Name or id of the image.
    pub(crate) fn image(&self) -> &str {
        self.line.first().map_or("", String::as_str)
    }

    /// What comes behind it, whatever it looks like.
    pub(crate) fn command(&self) -> &[String] {
        self.line.get(1..).unwrap_or_default()
    }
}

/// What runs in it.
#[derive(Args, Debug)]
pub(crate) struct ProgramFlags {
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Who runs it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Another group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Replaces the image's entrypoint; empty: there is none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Labels of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// What stops it
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds between the stop signal and the end; -1: never
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) stop_timeout: Option<i32>,
    /// A first process that collects orphans and hands on signals
    #[arg(long)]
    pub(crate) init: bool,
    /// Limit of setrlimit(2)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// More or less likely to be killed when memory is short: -1000 to 1000
    #[arg(long, default_value_t = 0, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) oom_score_adj: i32,
    /// Parent of its cgroup
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) health: HealthFlags,
    /// What is kept of what it says: json-file or local (files, rotated), none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// max-size=BYTES of one file [default: 100m], max-file=NUMBER of them [default: 3]
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<String>,
    /// For plugins and runtimes
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Handler of the configuration that runs it
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,
}

/// Whether it is well.
#[derive(Args, Debug)]
pub(crate) struct HealthFlags {
    /// Command that finds out whether it is well
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two of them, for example 1m30s [default: the image's, else 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) health_interval: Option<String>,
    /// Time for one [default: the image's, else 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy [default: the image's, else 3]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) health_retries: Option<i32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_period: Option<String>,
    /// Time between two of them in the start period [default: the image's, else 5s]
    #[arg(long, value_name = "TIME")]
    pub(crate) health_start_interval: Option<String>,
    /// Nobody looks whether it is well
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}

/// Its files.
#[derive(Args, Debug)]
pub(crate) struct FileFlags {
    /// Show a volume, or a directory or file of this machine in it
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub(crate) volume: Vec<String>,
    /// The same with everything said: type=bind|volume|tmpfs|image,source=,target=,...
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub(crate) mount: Vec<String>,
    /// A directory in memory
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// The mounts of another container too
    #[arg(long, value_name = "CONTAINER[:ro]", add = super::complete::containers())]
    pub(crate) volumes_from: Vec<String>,
    /// Nothing can be written to its root
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Driver of the volumes that --volume makes: local is the only one
    #[arg(long, value_name = "DRIVER", default_value = "local", hide_default_value = true, value_parser = ["local"])]
    pub(crate) volume_driver: String,
    /// A device of this machine, or of a vendor (CDI)
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub(crate) device: Vec<String>,
    /// NVIDIA's devices, by their CDI specifications: all, a number, device=ID,...
    #[arg(long, value_name = "DEVICES")]
    pub(crate) gpus: Option<String>,
    /// A rule of the device cgroup
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<String>,
}

/// Its network.
#[derive(Args, Debug)]
pub(crate) struct NetworkFlags {
    /// Lead a port of this machine into it
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Lead a free port of this machine into it for every port that it exposes
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Ports that it listens on
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
    /// bridge, none, host, container:NAME, or networks; name=NETWORK,alias=NAME,ip=ADDRESS says more
    #[arg(long, alias = "net", value_name = "NETWORK", add = super::complete::networks())]
    pub(crate) network: Vec<String>,
    /// Another name of it in its network
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// Its address in its network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// Its IPv6 address in its network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<String>,
    /// Host name; the beginning of its id if not given
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Domain of its host name
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,
    /// Domain in which names are looked for
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// A line of its hosts file; host-gateway is the address of this machine
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
}

/// What it may do.
#[derive(Args, Debug)]
pub(crate) struct SecurityFlags {
    /// All capabilities and devices, and nothing confined
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Capability to add
    #[arg(long, value_name = "NAME")]
    pub(crate) cap_add: Vec<String>,
    /// Capability to drop
    #[arg(long, value_name = "NAME")]
    pub(crate) cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, label=, systempaths=unconfined, mask=, unmask=
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Kernel parameter of its own
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Processes that it sees: host, container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// cgroups that it sees: private, host
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<String>,
    /// Shared memory and semaphores: private, host, container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// Host name: host
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// User namespace: host, private (its own ids, found by themselves)
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
}
