//! Options of `creel run` that are a little language each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use api::creel::{Healthcheck, Limits, NetworkAttachment, PortBinding, RestartPolicy, Ulimit};

use super::flags::{HealthFlags, LimitFlags, NetworkFlags};
use crate::error::{self, Error};

/// An option that does not say what it should.
pub(crate) fn wrong(option: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Option { option, value: value.to_owned(), why: why.into() }
}

/// The value of a variable here, if it has one.
pub(crate) fn here(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Variables of files and flags, in this order: `NAME=VALUE`, or `NAME` for the value that it has here. A name without a
/// value anywhere is left out.
pub(crate) fn env(files: &[PathBuf], flags: &[String], here: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for file in files {
        lines.extend(lines_of(file)?);
    }
    lines.extend(flags.iter().cloned());
    let mut out = Vec::new();
    for line in lines {
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.as_str(), here(&line)),
        };
        if name.is_empty() {
            return Err(wrong("--env", &line, "a variable needs a name"));
        }
        out.extend(value.map(|value| format!("{name}={value}")));
    }
    Ok(out)
}

/// The lines of a file that say something; blanks in front do not count.
fn lines_of(file: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(file).map_err(error::io(format!("open {}", file.display())))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// `NAME[=VALUE]` of files and flags; the last one counts.
pub(super) fn labels(files: &[PathBuf], flags: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut lines = Vec::new();
    for file in files {
        lines.extend(lines_of(file)?);
    }
    lines.extend(flags.iter().cloned());
    let label = |line: String| match line.split_once('=').unwrap_or((&line, "")) {
        ("", _) => Err(wrong("--label", &line, "a label needs a name")),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    lines.into_iter().map(label).collect()
}

/// Bytes with a unit of 1024: b, k, m, g, t, p; without a unit bytes. `1.5g` is fine.
pub(crate) fn bytes(option: &'static str, text: &str) -> Result<u64, Error> {
    let bad = || wrong(option, text, "not a number with b, k, m, g, t or p");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    let (whole, part) = digits.trim_end().split_once('.').unwrap_or((digits.trim_end(), ""));
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let whole = whole.checked_mul(1 << shift).ok_or_else(bad)?;
    if part.is_empty() {
        return Ok(whole);
    }
    // Nine digits behind the point are more than enough.
    let part = &part[..part.len().min(9)];
    let number: u64 = part.parse().map_err(|_| bad())?;
    let scale = 10_u128.pow(u32::try_from(part.len()).unwrap_or(9));
    let fraction = (u128::from(number) << shift) / scale;
    whole.checked_add(u64::try_from(fraction).map_err(|_| bad())?).ok_or_else(bad)
}

fn signed(option: &'static str, text: &str) -> Result<i64, Error> {
    i64::try_from(bytes(option, text)?).map_err(|_| wrong(option, text, "too much"))
}

/// Billionths of a CPU out of a decimal number.
fn cpus(text: &str) -> Result<i64, Error> {
    let bad = || wrong("--cpus", text, "not a number of processors like 1.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 9 || (whole.is_empty() && part.is_empty()) || !format!("{whole}{part}").bytes().all(|c| c.is_ascii_digit()) {
        return Err(bad());
    }
    let nano: i64 = format!("{whole}{part:0<9}").parse().map_err(|_| bad())?;
    if nano == 0 { Err(bad()) } else { Ok(nano) }
}

/// All limits.
pub(crate) fn limits(flags: &LimitFlags) -> Result<Limits, Error> {
    let memory = |option: &'static str, text: &Option<String>| text.as_deref().map(|text| signed(option, text)).transpose();
    let memory_swap = match flags.memory_swap.as_deref() {
        Some("-1") => Some(-1),
        _ => memory("--memory-swap", &flags.memory_swap)?,
    };
    let nano_cpus = flags.cpus.as_deref().map(cpus).transpose()?;
    if nano_cpus.is_some() && (flags.cpu_period.is_some() || flags.cpu_quota.is_some()) {
        return Err(wrong("--cpus", flags.cpus.as_deref().unwrap_or_default(), "it says the same as --cpu-period and --cpu-quota"));
    }
    Ok(Limits {
        memory: memory("--memory", &flags.memory)?,
        memory_swap,
        memory_reservation: memory("--memory-reservation", &flags.memory_reservation)?,
        nano_cpus,
        cpu_shares: flags.cpu_shares,
        cpu_period: flags.cpu_period,
        cpu_quota: flags.cpu_quota,
        cpuset_cpus: flags.cpuset_cpus.clone(),
        cpuset_mems: flags.cpuset_mems.clone(),
        pids: flags.pids_limit,
    })
}

/// `NAME=SOFT[:HARD]`; `unlimited` is -1.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let bad = || wrong("--ulimit", text, "not NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| bad()) };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft > hard || soft < 0) {
        return Err(wrong(
            "--ulimit",
            text,
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"),
        ));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:TIMES]`.
pub(super) fn restart(text: &str) -> Result<RestartPolicy, Error> {
    let (name, times) = text.split_once(':').map_or((text, None), |(name, times)| (name, Some(times)));
    match (name, times) {
        ("on-failure", Some(times)) => {
            let maximum_retries = times.parse().map_err(|_| wrong("--restart", text, "the times are not a number"))?;
            Ok(RestartPolicy { name: name.to_owned(), maximum_retries })
        }
        ("no" | "always" | "unless-stopped" | "on-failure", None) => {
            Ok(RestartPolicy { name: name.to_owned(), maximum_retries: 0 })
        }
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err(wrong("--restart", text, "maximum retry count can only be used with 'on-failure'"))
        }
        _ => Err(wrong(
            "--restart",
            text,
            format!("unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
        )),
    }
}

/// `NAME=VALUE`.
pub(super) fn pairs(option: &'static str, flags: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(wrong(option, text, "not NAME=VALUE")),
    };
    flags.iter().map(pair).collect()
}

/// How it is found out whether it is well; `None`: as the image says.
pub(super) fn healthcheck(flags: &HealthFlags) -> Result<Option<Healthcheck>, Error> {
    let time = |option: &'static str, text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => match dockerfile::duration(text) {
            Some(time) => i64::try_from(time.as_nanos()).map_err(|_| wrong(option, text, "too long")),
            None => Err(wrong(option, text, "not a time like 1m30s")),
        },
    };
    let check = Healthcheck {
        test: flags.health_cmd.iter().flat_map(|line| ["CMD-SHELL".to_owned(), line.clone()]).collect(),
        interval: time("--health-interval", &flags.health_interval)?,
        timeout: time("--health-timeout", &flags.health_timeout)?,
        start_period: time("--health-start-period", &flags.health_start_period)?,
        start_interval: time("--health-start-interval", &flags.health_start_interval)?,
        retries: flags.health_retries.unwrap_or_default(),
    };
    match (flags.no_healthcheck, check == Healthcheck::default()) {
        (true, true) => Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..check })),
        (true, false) => Err(wrong("--no-healthcheck", "", "conflicts with --health-* options")),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(check)),
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, an IPv6 address with or without brackets.
pub(crate) fn host(text: &str) -> Result<String, Error> {
    let bad = || wrong("--add-host", text, "not NAME:ADDRESS with an IP address or host-gateway");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let fine = !name.is_empty() && (bare == "host-gateway" || bare.parse::<IpAddr>().is_ok());
    if fine { Ok(format!("{name}:{bare}")) } else { Err(bad()) }
}

/// A file of a security option is this client's, and may be named from where it is.
pub(super) fn security(text: &str) -> Result<String, Error> {
    match text.split_once(['=', ':']) {
        Some(("seccomp", file)) if file != "unconfined" => {
            let path = fs::canonicalize(file).map_err(error::io(format!("opening seccomp profile ({file}) failed")))?;
            Ok(format!("seccomp={}", path.display()))
        }
        _ => Ok(text.to_owned()),
    }
}

/// `PORT`, `PORT-PORT`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

fn protocol(text: &str) -> Option<(&str, &str)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    matches!(protocol, "tcp" | "udp" | "sctp").then_some((ports, protocol))
}

/// `NETWORK`, or `name=NETWORK,alias=NAME,ip=ADDRESS`, each; what flags of their own say is meant for the first.
pub(super) fn networks(flags: &NetworkFlags) -> Result<Vec<NetworkAttachment>, Error> {
    let mut all = flags.network.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        all.push(NetworkAttachment::default());
    }
    all[0].aliases.extend(flags.network_alias.iter().cloned());
    match (&flags.ip, &flags.ip6) {
        (Some(_), Some(ip)) => {
            return Err(wrong("--ip6", ip, "conflicts with --ip: one address can be asked for, the other one is found"));
        }
        (Some(ip), None) | (None, Some(ip)) => all[0].ip.clone_from(ip),
        (None, None) => {}
    }
    Ok(all)
}

fn network(text: &str) -> Result<NetworkAttachment, Error> {
    if !text.contains('=') {
        return Ok(NetworkAttachment { network: text.to_owned(), ..NetworkAttachment::default() });
    }
    let mut read = NetworkAttachment::default();
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", name)) => name.clone_into(&mut read.network),
            Some(("alias", name)) => read.aliases.push(name.to_owned()),
            Some(("ip" | "ip6", ip)) => ip.clone_into(&mut read.ip),
            _ => return Err(wrong("--network", text, format!("unknown field '{field}': there are name, alias and ip"))),
        }
    }
    if read.network.is_empty() {
        return Err(wrong("--network", text, "network name/id is not specified"));
    }
    Ok(read)
}

/// Ports of --expose, one by one.
pub(super) fn exposed(text: &str) -> Result<Vec<String>, Error> {
    let bad = || wrong("--expose", text, "not PORT[-PORT][/tcp|udp|sctp]");
    let (ports, protocol) = protocol(text).ok_or_else(bad)?;
    let (first, last) = range(ports).ok_or_else(bad)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `[[IP:][HOST]:]CONTAINER[/PROTOCOL]` with ranges; an IPv6 address is in brackets.
pub(super) fn publish(text: &str) -> Result<Vec<PortBinding>, Error> {
    let bad = || wrong("--publish", text, "not [[IP:]HOST:]CONTAINER[/tcp|udp|sctp] with ports from 1 to 65535");
    let (ports, protocol) = protocol(text).ok_or_else(bad)?;
    let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(wrong("--publish", text, format!("invalid IP address: {ip}")));
    }
    let (first, last) = range(container).ok_or_else(bad)?;
    let count = last - first;
    let hosts = match host {
        "" | "0" => None,
        host => Some(range(host).ok_or_else(bad)?),
    };
    let host_port = |at: u16| match hosts {
        None => Ok(0),
        Some((from, to)) if to - from == count => Ok(from + at),
        Some(_) => Err(wrong("--publish", text, "the two ranges are not as long")),
    };
    let binding = |at: u16| {
        Ok(PortBinding {
            container_port: u32::from(first + at),
            protocol: protocol.to_owned(),
            host_ip: ip.to_owned(),
            host_port: u32::from(host_port(at)?),
        })
    };
    (0..=count).map(binding).collect()
}

/// `all`, a number, or `device=ID[,ID...]`: NVIDIA's devices by the names that its CDI specifications have.
pub(super) fn gpus(text: &str) -> Result<Vec<String>, Error> {
    let name = |id: &str| format!("nvidia.com/gpu={id}");
    // `"device=0,1"` has quotes of its own where a shell's would not be enough for docker.
    let text = text.trim_matches('"');
    match (text, text.parse::<u8>(), text.strip_prefix("device=")) {
        ("all", ..) => Ok(vec![name("all")]),
        (_, Ok(count), _) => Ok((0..count).map(|id| name(&id.to_string())).collect()),
        (_, _, Some(ids)) if !ids.split(',').any(str::is_empty) => Ok(ids.split(',').map(name).collect()),
        _ => Err(wrong("--gpus", text, "not all, a number, or device=ID[,ID...]")),
    }
}

/// What is exposed: by flags and by publishing.
pub(super) fn all_exposed(flags: &[String], ports: &[PortBinding]) -> Result<Vec<String>, Error> {
    let mut all = BTreeSet::new();
    for flag in flags {
        all.extend(exposed(flag)?);
    }
    all.extend(ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)));
    Ok(all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        fs::write(&file, "# remark\n\n  A=1\nHERE\nGONE\nB= x \n").unwrap();
        let here = |name: &str| (name == "HERE").then(|| "h".to_owned());
        let got = env(&[file], &["A=2=3".into(), "HERE".into()], here).unwrap();
        assert_eq!(got, ["A=1", "HERE=h", "B= x ", "A=2=3", "HERE=h"]);
        assert!(env(&[], &["=x".into()], here).is_err() && env(&["/nonexistent/x".into()], &[], here).is_err());
        assert_eq!(labels(&[], &["a=b=c".into(), "d".into()]).unwrap().into_iter().collect::<Vec<_>>().len(), 2);
        assert!(labels(&[], &["=b".into()]).is_err());
    }

    #[test]
    fn quantities() {
        for (text, number) in [("512m", 512 << 20), ("1GiB", 1 << 30), ("1.5g", 3 << 29), ("100", 100), ("2kb", 2048), ("7b", 7)] {
            assert_eq!(bytes("-m", text).unwrap(), number, "{text}");
        }
        for bad in ["", "m", "1x", "-1m", "99999999999t", "1.xg", ".5g", "1 2"] {
            assert!(bytes("-m", bad).is_err(), "{bad}");
        }
        assert_eq!((cpus("1.5").unwrap(), cpus("2").unwrap(), cpus(".25").unwrap()), (1_500_000_000, 2_000_000_000, 250_000_000));
        for bad in ["0", "", "-1", "x", "1.0000000001", "."] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        let flags = LimitFlags { memory: Some("1g".into()), memory_swap: Some("-1".into()), ..LimitFlags::default() };
        let limits = limits(&flags).unwrap();
        assert_eq!((limits.memory, limits.memory_swap, limits.pids), (Some(1 << 30), Some(-1), None));
    }

    #[test]
    fn small_languages() {
        assert_eq!(ulimit("nofile=1024").unwrap(), Ulimit { name: "nofile".into(), soft: 1024, hard: 1024 });
        assert_eq!(ulimit("core=0:unlimited").unwrap().hard, -1);
        assert!(ulimit("nofile").is_err() && ulimit("nofile=5:4").is_err() && ulimit("nofile=x").is_err());
        assert_eq!(restart("on-failure:3").unwrap().maximum_retries, 3);
        assert!(restart("always").is_ok() && restart("always:2").is_err() && restart("sometimes").is_err());
        assert_eq!(host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(host("gw:host-gateway").unwrap(), "gw:host-gateway");
        assert!(host("a").is_err() && host("a:b").is_err() && host(":1.2.3.4").is_err());
        assert!(pairs("--sysctl", &["a".into()]).is_err() && pairs("--sysctl", &["a=b".into()]).is_ok());
    }

    #[test]
    fn graphics() {
        assert_eq!(gpus("all").unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(gpus("2").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(gpus("\"device=0,GPU-3a\"").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-3a"]);
        assert!(gpus("none").is_err() && gpus("device=").is_err() && gpus("capabilities=utility").is_err());
    }

    #[test]
    fn ports() {
        for (text, expected) in [
            ("8080:80", vec![("", 8080, 80, "tcp")]),
            ("80", vec![("", 0, 80, "tcp")]),
            ("53:53/udp", vec![("", 53, 53, "udp")]),
            ("127.0.0.1::80", vec![("127.0.0.1", 0, 80, "tcp")]),
            ("127.0.0.1:0:80-81", vec![("127.0.0.1", 0, 80, "tcp"), ("127.0.0.1", 0, 81, "tcp")]),
            ("0:80/udp", vec![("", 0, 80, "udp")]),
            ("[::1]::80", vec![("::1", 0, 80, "tcp")]),
            ("80-81", vec![("", 0, 80, "tcp"), ("", 0, 81, "tcp")]),
            ("[::1]:1:2/sctp", vec![("::1", 1, 2, "sctp")]),
            ("8000-8001:80-81", vec![("", 8000, 80, "tcp"), ("", 8001, 81, "tcp")]),
        ] {
            let got = publish(text).unwrap();
            let got: Vec<_> = got
                .iter()
                .map(|port| (port.host_ip.as_str(), port.host_port, port.container_port, port.protocol.as_str()))
                .collect();
            assert_eq!(got, expected, "{text}");
        }
        for bad in ["0-1:80-81", "80:0", "80:70000", "x:80", "localhost:1:2", "1:2/icmp", "", "1-2:3", "5-4"] {
            assert!(publish(bad).is_err(), "{bad}");
        }
        assert_eq!(all_exposed(&["90-91/udp".into()], &publish("80").unwrap()).unwrap(), ["80/tcp", "90/udp", "91/udp"]);
        assert!(exposed("x").is_err());
    }
}
