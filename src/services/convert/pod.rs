//! Pods: a PodSandboxConfig becomes a `PodSpec`.

use std::{collections::BTreeMap, net::IpAddr};

use api::runtime as cri;
use model::pod::{Dns, NamespaceMode, PodKey, PodSpec, PortMapping, Protocol};

use super::{Result, absolute, annotations, invalid, known, labels, no_climbing, resources, security, shown};

/// A pod as asked for.
pub(crate) fn spec(config: Option<cri::PodSandboxConfig>, runtime_handler: String) -> Result<PodSpec> {
    let config = config.ok_or_else(|| invalid("config", "missing"))?;
    let linux = config.linux.unwrap_or_default();
    let security = security::pod(linux.security_context.unwrap_or_default())?;
    // Ports of a pod on the host's network are the host's already; Kubernetes fills them in all the same.
    let port_mappings = match security.namespaces.network {
        NamespaceMode::Node => Vec::new(),
        NamespaceMode::Pod | NamespaceMode::Container => ports(config.port_mappings)?,
    };
    Ok(PodSpec {
        key: key(config.metadata)?,
        hostname: hostname(config.hostname)?,
        log_directory: log_directory(config.log_directory)?,
        dns: dns(config.dns_config)?,
        port_mappings,
        user_made: false,
        labels: labels("config.labels", config.labels)?,
        annotations: annotations("config.annotations", config.annotations)?,
        cgroup_parent: cgroup_parent(linux.cgroup_parent)?,
        namespaces: security.namespaces,
        sysctls: sysctls(linux.sysctls)?,
        privileged: security.privileged,
        runtime_handler,
        resources: resources::from_proto("config.linux.resources", linux.resources)?,
        overhead: resources::from_proto("config.linux.overhead", linux.overhead)?,
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_group,
        userns: security.userns,
        selinux: security.selinux,
        own: None,
    })
}

/// Names are parts of nothing but messages, so they are free; but a pod without any cannot be told from another.
fn key(metadata: Option<cri::PodSandboxMetadata>) -> Result<PodKey> {
    let metadata = metadata.ok_or_else(|| invalid("config.metadata", "missing"))?;
    for (field, text) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if text.len() > 512 {
            return Err(invalid(format_args!("config.metadata.{field}"), "more than 512 bytes"));
        }
    }
    if metadata.name.is_empty() {
        return Err(invalid("config.metadata.name", "missing"));
    }
    Ok(PodKey { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid, attempt: metadata.attempt })
}

/// sethostname(2) takes 64 bytes.
fn hostname(name: String) -> Result<String> {
    if name.len() > 64 || name.bytes().any(|c| c.is_ascii_control() || c == b' ' || c == b'/') {
        return Err(invalid("config.hostname", format_args!("{}: not a host name of up to 64 bytes", shown(&name))));
    }
    Ok(name)
}

fn log_directory(path: String) -> Result<String> {
    if path.is_empty() {
        return Ok(path);
    }
    no_climbing("config.log_directory", absolute("config.log_directory", path)?)
}

/// Every word goes into resolv.conf(5), which knows lines and blanks and no quotes.
fn dns(config: Option<cri::DnsConfig>) -> Result<Option<Dns>> {
    let Some(config) = config else { return Ok(None) };
    let words = |name: &str, words: Vec<String>| match words
        .iter()
        .find(|w| w.is_empty() || w.contains(char::is_whitespace) || w.contains('\0'))
    {
        Some(bad) => Err(invalid(format_args!("config.dns_config.{name}"), format_args!("{}: not one word", shown(bad)))),
        None => Ok(words),
    };
    let dns = Dns {
        servers: words("servers", config.servers)?,
        searches: words("searches", config.searches)?,
        options: words("options", config.options)?,
    };
    Ok(Some(dns).filter(|dns| *dns != Dns::default()))
}

fn ports(mappings: Vec<cri::PortMapping>) -> Result<Vec<PortMapping>> {
    mappings.into_iter().enumerate().filter(|(_, mapping)| mapping.host_port != 0).map(port).collect()
}

fn port((index, mapping): (usize, cri::PortMapping)) -> Result<PortMapping> {
    let field = |name: &str| format!("config.port_mappings[{index}].{name}");
    let number = |name: &str, port: i32| match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(invalid(field(name), format_args!("{port}: not from 1 to 65535"))),
    };
    let host_ip: Option<IpAddr> = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(field("host_ip"), format_args!("{}: not an IP address", shown(text))))?),
    };
    let protocol = match known(field("protocol"), mapping.protocol)? {
        cri::Protocol::Tcp => Protocol::Tcp,
        cri::Protocol::Udp => Protocol::Udp,
        cri::Protocol::Sctp => Protocol::Sctp,
    };
    Ok(PortMapping {
        protocol,
        container_port: number("container_port", mapping.container_port)?,
        host_port: number("host_port", mapping.host_port)?,
        // "All addresses" is what nothing said means.
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
    })
}

/// A path or a systemd slice: which of them it has to be follows from the cgroup driver, and is the engine's to say.
fn cgroup_parent(path: String) -> Result<String> {
    const FIELD: &str = "config.linux.cgroup_parent";
    if path.is_empty() {
        return Ok(path);
    }
    if path.ends_with(".slice") && !path.contains('/') {
        return Ok(path);
    }
    no_climbing(FIELD, absolute(FIELD, path)?)
}

/// Keys in dotted form. sysctl(8) takes both: if a slash comes before the first dot, slashes and dots have swapped roles.
/// Which of them a pod may set is the engine's to say.
fn sysctls(asked: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let swapped = |key: &str| key.find('/').is_some_and(|slash| key.find('.').is_none_or(|dot| slash < dot));
    let swap = |c: char| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    let dotted = |key: String| if swapped(&key) { key.chars().map(swap).collect() } else { key };
    asked
        .into_iter()
        .map(|(key, value)| {
            let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/');
            let dotted = dotted(key);
            if dotted.is_empty() || dotted.contains("..") || dotted.starts_with(['.', '/']) || !dotted.bytes().all(word) {
                return Err(invalid(
                    "config.linux.sysctls",
                    format_args!("{}: not a key like net.ipv4.ip_forward", shown(&dotted)),
                ));
            }
            Ok((dotted, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Config = cri::PodSandboxConfig;
    type Linux = cri::LinuxPodSandboxConfig;

    fn good() -> Config {
        let metadata = cri::PodSandboxMetadata { name: "n".into(), uid: "u".into(), namespace: "ns".into(), attempt: 3 };
        Config { metadata: Some(metadata), ..Config::default() }
    }

    fn linux(linux: Linux) -> Config {
        Config { linux: Some(linux), ..good() }
    }

    fn converted(config: Config) -> Result<PodSpec> {
        spec(Some(config), String::new())
    }

    fn mapping(container_port: i32, host_port: i32, host_ip: &str) -> cri::PortMapping {
        cri::PortMapping { protocol: 1, container_port, host_port, host_ip: host_ip.into() }
    }

    #[test]
    fn a_bare_pod_shares_everything_within_itself() {
        let pod = converted(good()).unwrap();
        assert_eq!(pod.key, PodKey { namespace: "ns".into(), name: "n".into(), uid: "u".into(), attempt: 3 });
        assert_eq!((pod.namespaces, pod.user_made, pod.dns), (Default::default(), false, None));
    }

    #[test]
    fn ports_without_a_host_port_are_no_mappings() {
        let config =
            Config { port_mappings: vec![mapping(80, 0, ""), mapping(81, 8081, "0.0.0.0"), mapping(82, 82, "::1")], ..good() };
        let ports = converted(config.clone()).unwrap().port_mappings;
        assert_eq!(ports.len(), 2);
        assert_eq!((ports[0].host_port, ports[0].host_ip, ports[0].protocol), (8081, None, Protocol::Udp));
        assert_eq!(ports[1].host_ip, Some("::1".parse().unwrap()));
        let options = cri::NamespaceOption { network: cri::NamespaceMode::Node.into(), ..Default::default() };
        let context = cri::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let host = Config { linux: Some(Linux { security_context: Some(context), ..Linux::default() }), ..config };
        assert_eq!(converted(host).unwrap().port_mappings, []);
    }

    #[test]
    fn sysctls_are_dotted() {
        let config = linux(Linux {
            sysctls: [("net/ipv4/conf/eth0.1/forwarding".to_owned(), "1".to_owned()), ("kernel.shmmax".to_owned(), "2".to_owned())]
                .into(),
            ..Linux::default()
        });
        let keys: Vec<_> = converted(config).unwrap().sysctls.into_keys().collect();
        assert_eq!(keys, ["kernel.shmmax", "net.ipv4.conf.eth0/1.forwarding"]);
    }

    #[test]
    fn an_empty_dns_config_is_none() {
        assert_eq!(converted(Config { dns_config: Some(Default::default()), ..good() }).unwrap().dns, None);
        let config = cri::DnsConfig { servers: vec!["10.0.0.10".into()], options: vec!["ndots:5".into()], searches: vec![] };
        assert!(converted(Config { dns_config: Some(config), ..good() }).unwrap().dns.is_some());
    }

    #[test]
    fn refusals_name_the_field() {
        let sysctl = |key: &str| linux(Linux { sysctls: [(key.to_owned(), String::new())].into(), ..Linux::default() });
        let parent = |path: &str| linux(Linux { cgroup_parent: path.into(), ..Linux::default() });
        let dns =
            |word: &str| Config { dns_config: Some(cri::DnsConfig { servers: vec![word.into()], ..Default::default() }), ..good() };
        let ports = |mapping| Config { port_mappings: vec![mapping], ..good() };
        for (field, bad) in [
            ("config.metadata", Config::default()),
            ("config.metadata.name", Config { metadata: Some(Default::default()), ..good() }),
            ("config.hostname", Config { hostname: "a".repeat(65), ..good() }),
            ("config.hostname", Config { hostname: "a\nb".into(), ..good() }),
            ("config.log_directory", Config { log_directory: "logs".into(), ..good() }),
            ("config.log_directory", Config { log_directory: "/var/log/../../etc".into(), ..good() }),
            ("config.dns_config.servers", dns("1.1.1.1\noptions debug")),
            ("config.dns_config.servers", dns("")),
            ("config.port_mappings[0].host_port", ports(mapping(80, 70000, ""))),
            ("config.port_mappings[0].host_port", ports(mapping(80, -1, ""))),
            ("config.port_mappings[0].container_port", ports(mapping(0, 80, ""))),
            ("config.port_mappings[0].host_ip", ports(mapping(80, 80, "localhost"))),
            ("config.port_mappings[0].protocol", ports(cri::PortMapping { protocol: 3, ..mapping(80, 80, "") })),
            ("config.linux.cgroup_parent", parent("relative")),
            ("config.linux.cgroup_parent", parent("/a/../..")),
            ("config.linux.sysctls", sysctl("../kernel/x")),
            ("config.linux.sysctls", sysctl("kernel..x")),
            ("config.linux.sysctls", sysctl("")),
            ("config.labels", Config { labels: [("k".repeat(5000), String::new())].into(), ..good() }),
        ] {
            let text = converted(bad).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{field}: ")), "{field} <> {text}");
        }
        assert_eq!(spec(None, String::new()).unwrap_err().to_string(), "config: missing");
        assert!(spec(Some(good()), "creel".into()).is_ok());
        // Which handlers there are is the engine's to know.
        assert_eq!(spec(Some(good()), "runc".into()).unwrap().runtime_handler, "runc");
    }
}
