//! What `creel run` and `creel create` ask the daemon for.

use std::path::Path;

use api::creel::{ContainerConfig, CreateContainerRequest, HostConfig};
use clap::Args as _;

use super::{
    flags::{CreateFlags, NetworkFlags, ProgramFlags},
    mounts,
    options::{self, wrong},
};
use crate::error::Error;

/// Flags of docker's that have no meaning here, and what to do instead.
const NOT_HERE: [(&str, &str); 14] = [
    ("blkio-weight", "block I/O is not limited by container"),
    ("cpu-rt-period", "there is no real-time quota of processors"),
    ("cpu-rt-runtime", "there is no real-time quota of processors"),
    ("device-read-bps", "block I/O is not limited by container"),
    ("device-read-iops", "block I/O is not limited by container"),
    ("device-write-bps", "block I/O is not limited by container"),
    ("device-write-iops", "block I/O is not limited by container"),
    ("isolation", "it is a matter of Windows"),
    ("kernel-memory", "the kernel does not limit it any more"),
    ("link", "containers in a network of `creel network create` know each other by name"),
    ("mac-address", "addresses of interfaces are made of their IP addresses"),
    ("memory-swappiness", "cgroup v2 has no such value"),
    ("oom-kill-disable", "cgroup v2 has no such value; --oom-score-adj says who is killed first"),
    ("storage-opt", "a container's layer has no options: give it a volume, or --tmpfs with a size, for what is to be limited"),
];

/// What stands before the image and is none, with the flag that it is near to.
fn unknown(flag: &str) -> Error {
    let word = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    if let Some((known, why)) = NOT_HERE.iter().find(|(known, _)| *known == word) {
        return Error::Flag(format!("--{known}: {why}"));
    }
    let known = CreateFlags::augment_args(clap::Command::new("run"));
    let near = dockerfile::closest(word, known.get_arguments().filter_map(clap::Arg::get_long));
    Error::Flag(near.map_or_else(|| flag.to_owned(), |near| format!("{flag} (did you mean --{near}?)")))
}

/// The request; `here` is the directory that relative paths are seen from.
pub(super) fn request(flags: &CreateFlags, here: &Path) -> Result<CreateContainerRequest, Error> {
    if flags.image().starts_with('-') {
        return Err(unknown(flags.image()));
    }
    let host = host(flags, here)?;
    if flags.rm && host.restart.as_ref().is_some_and(|policy| policy.name != "no") {
        return Err(wrong("--restart", &flags.restart, "conflicting options: cannot specify both --restart and --rm"));
    }
    let exposed_ports = options::all_exposed(&flags.network.expose, &host.ports)?;
    let config = ContainerConfig { exposed_ports, ..config(flags)? };
    Ok(CreateContainerRequest { name: flags.name.clone().unwrap_or_default(), config: Some(config), host: Some(host) })
}

fn config(flags: &CreateFlags) -> Result<ContainerConfig, Error> {
    let ProgramFlags { env, env_file, workdir, user, group_add, entrypoint, label, label_file, stop_signal, stop_timeout, .. } =
        &flags.program;
    let NetworkFlags { hostname, domainname, .. } = &flags.network;
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(directory) = workdir
        && !directory.starts_with('/')
    {
        let why = format!("the working directory '{directory}' is invalid, it needs to be an absolute path");
        return Err(wrong("--workdir", directory, why));
    }
    Ok(ContainerConfig {
        image: flags.image().to_owned(),
        image_name: flags.image().to_owned(),
        entrypoint: entrypoint.iter().filter(|program| !program.is_empty()).cloned().collect(),
        reset_entrypoint: entrypoint.is_some(),
        command: flags.command().to_vec(),
        env: options::env(env_file, env, options::here)?,
        working_dir: or_empty(workdir),
        user: or_empty(user),
        groups: group_add.clone(),
        hostname: or_empty(hostname),
        domainname: or_empty(domainname),
        labels: options::labels(label_file, label)?,
        tty: flags.tty,
        open_stdin: flags.interactive,
        stdin_once: flags.interactive,
        stop_signal: or_empty(stop_signal),
        stop_timeout: *stop_timeout,
        platform: or_empty(&flags.platform),
        healthcheck: options::healthcheck(&flags.program.health)?,
        ..ContainerConfig::default()
    })
}

fn host(flags: &CreateFlags, here: &Path) -> Result<HostConfig, Error> {
    let CreateFlags { files, network, security, program, .. } = flags;
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut mounts = Vec::new();
    for text in &files.volume {
        mounts.push(mounts::volume(text, here)?);
    }
    for text in &files.mount {
        mounts.push(mounts::mount(text, here)?);
    }
    for text in &files.tmpfs {
        mounts.push(mounts::tmpfs(text)?);
    }
    let gpus = files.gpus.as_deref().map(options::gpus).transpose()?.unwrap_or_default();
    let ports = network.publish.iter().map(|text| options::publish(text)).collect::<Result<Vec<_>, _>>()?;
    let mut attachments = options::networks(network)?.into_iter();
    let first = attachments.next().unwrap_or_default();
    Ok(HostConfig {
        mounts,
        ports: ports.into_iter().flatten().collect(),
        publish_all: network.publish_all,
        network: first.network,
        network_aliases: first.aliases,
        ip: first.ip,
        more_networks: attachments.collect(),
        dns: network.dns.clone(),
        dns_search: network.dns_search.clone(),
        dns_options: network.dns_option.clone(),
        extra_hosts: network.add_host.iter().map(|text| options::host(text)).collect::<Result<_, _>>()?,
        restart: Some(options::restart(&flags.restart)?),
        auto_remove: flags.rm,
        privileged: security.privileged,
        readonly_rootfs: files.read_only,
        cap_add: security.cap_add.clone(),
        cap_drop: security.cap_drop.clone(),
        security_opt: security.security_opt.iter().map(|text| options::security(text)).collect::<Result<_, _>>()?,
        devices: [files.device.as_slice(), &gpus].concat(),
        init: program.init,
        limits: Some(options::limits(&flags.limits)?),
        ulimits: program.ulimit.iter().map(|text| options::ulimit(text)).collect::<Result<_, _>>()?,
        sysctls: options::pairs("--sysctl", &security.sysctl)?,
        shm_size: files.shm_size.as_deref().map(|text| options::bytes("--shm-size", text)).transpose()?.unwrap_or_default(),
        pid: or_empty(&security.pid),
        ipc: or_empty(&security.ipc),
        uts: or_empty(&security.uts),
        userns: or_empty(&security.userns),
        cgroup_parent: or_empty(&program.cgroup_parent),
        oom_score_adj: program.oom_score_adj,
        runtime: or_empty(&program.runtime),
        volumes_from: files.volumes_from.clone(),
        device_cgroup_rules: files.device_cgroup_rule.clone(),
        log_driver: or_empty(&program.log_driver),
        log_options: options::pairs("--log-opt", &program.log_opt)?,
        annotations: options::pairs("--annotation", &program.annotation)?,
        cgroupns: or_empty(&security.cgroupns),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        args::{Arguments, Command},
        container::args::Life,
    };

    fn asked(line: &[&str]) -> Result<CreateContainerRequest, Error> {
        let arguments = Arguments::try_parse_from(["creel", "run"].iter().chain(line)).unwrap();
        let Command::Life(Life::Run(run)) = arguments.command else { panic!("not run") };
        request(&run.create, Path::new("/here"))
    }

    #[test]
    fn a_plain_run() {
        let request = asked(&["busybox", "sh", "-c", "x"]).unwrap();
        let (config, host) = (request.config.unwrap(), request.host.unwrap());
        assert_eq!((config.image.as_str(), config.command.len(), config.reset_entrypoint), ("busybox", 3, false));
        assert_eq!((config.open_stdin, config.tty, host.auto_remove, host.privileged), (false, false, false, false));
        assert_eq!(host.restart.unwrap().name, "no");
        assert_eq!(request.name, "");
    }

    #[test]
    fn flags_arrive() {
        let line = [
            "-it",
            "--rm",
            "--name",
            "n",
            "-h",
            "host",
            "-m",
            "1g",
            "--cpus",
            "0.5",
            "-u",
            "5:6",
            "-p",
            "1:2",
            "-l",
            "a=b",
            "-v",
            "./d:/d",
            "--tmpfs",
            "/t",
            "--entrypoint",
            "",
            "--pids-limit",
            "-1",
            "--memory-swap",
            "-1",
            "--stop-timeout",
            "3",
            "--net",
            "host",
            "--oom-score-adj",
            "-5",
            "i",
            "--rm",
        ];
        let request = asked(&line).unwrap();
        let (config, host) = (request.config.unwrap(), request.host.unwrap());
        assert_eq!((config.tty, config.open_stdin, config.hostname.as_str(), config.stop_timeout), (true, true, "host", Some(3)));
        assert!(config.reset_entrypoint && config.entrypoint.is_empty() && host.auto_remove);
        assert_eq!(
            (config.command.as_slice(), config.exposed_ports.as_slice()),
            (["--rm".to_owned()].as_slice(), ["2/tcp".to_owned()].as_slice())
        );
        let limits = host.limits.unwrap();
        assert_eq!((limits.memory, limits.nano_cpus, limits.pids), (Some(1 << 30), Some(500_000_000), Some(-1)));
        assert_eq!((host.mounts.len(), host.mounts[0].source.as_str(), host.network.as_str()), (2, "/here/d", "host"));
        assert_eq!(host.oom_score_adj, -5);
        assert!(asked(&["--rm", "--restart", "always", "i"]).is_err());
        assert!(asked(&["-w", "relative", "i"]).is_err());
        let gpus = asked(&["--gpus", "1", "--device", "/dev/a", "i"]).unwrap().host.unwrap();
        assert_eq!(gpus.devices, ["/dev/a", "nvidia.com/gpu=0"]);
        let link = asked(&["--link", "db:db", "i"]).unwrap_err().to_string();
        assert!(link.contains("network create"), "{link}");
        assert!(asked(&["--ip", "10.0.0.1", "--ip6", "fd00::1", "i"]).is_err());
        assert!(matches!(asked(&["--no-such-flag", "i"]), Err(Error::Flag(_))));
        assert!(asked(&["--memroy=5m", "i"]).is_err_and(|e| e.to_string() == "unknown flag: --memroy=5m (did you mean --memory?)"));
    }
}
