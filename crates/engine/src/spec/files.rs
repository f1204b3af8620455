//! hosts, hostname and resolv.conf of a pod (R14: one writer per file, an allow-list per field, reject and not escape).

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use model::pod::{Dns, Network, PodSpec};

use super::error::{Error, cut};

/// hosts(5).
pub const HOSTS: &str = "hosts";
/// hostname(5).
pub const HOSTNAME: &str = "hostname";
/// resolv.conf(5).
pub const RESOLV_CONF: &str = "resolv.conf";
/// HOST_NAME_MAX of Linux; a label of RFC 1123 has at most 63.
const MAX_HOSTNAME: usize = 64;
const MAX_LABEL: usize = 63;
/// More than Kubernetes allows (32 search domains, 2048 characters).
const MAX_ENTRIES: usize = 64;
const MAX_DOMAIN: usize = 253;
/// Most bytes of the host's own files that are handed on.
const MAX_HOST_FILE: u64 = 1 << 20;

/// Writes the three files into the pod's directory, each at once or not at all.
///
/// # Errors
/// A field that may not stand in its file; a file that cannot be written.
pub fn write(spec: &PodSpec, network: &Network, dir: &Path) -> Result<(), Error> {
    let name = visible_hostname(spec)?;
    put(&dir.join(HOSTNAME), format!("{name}\n").as_bytes())?;
    // With a domain the whole name comes first (hosts(5)).
    let name = domainname(spec)?.map_or(name.clone(), |domain| format!("{name}.{domain} {name}"));
    let hosts = match network {
        Network::Host if super::no_network(spec) => hosts(&name, std::iter::empty()).into_bytes(),
        Network::Host => host_file("/etc/hosts")?,
        Network::Pod { ip, additional } => hosts(&name, std::iter::once(ip).chain(additional)).into_bytes(),
    };
    let hosts = [hosts, more_hosts(spec)?.into_bytes()].concat();
    put(&dir.join(HOSTS), &hosts)?;
    put(&dir.join(RESOLV_CONF), &resolv_text(spec.dns.as_ref())?)
}

/// The host name of the pod's own UTS namespace; `None`: it is the node's.
///
/// # Errors
/// Not a host name.
pub fn hostname(spec: &PodSpec) -> Result<Option<String>, Error> {
    if super::host_uts(spec) {
        return Ok(None);
    }
    if !spec.hostname.is_empty() {
        return check_hostname(&spec.hostname).map(Some);
    }
    // A pod's name may be longer than a host name; kubelets cut it the same way.
    let cut: String = spec.key.name.chars().take(MAX_LABEL).collect();
    check_hostname(cut.trim_end_matches(['-', '.'])).map(Some)
}

/// The NIS domain name of the pod's own UTS namespace; `None`: the kernel's.
///
/// # Errors
/// Not a domain.
pub fn domainname(spec: &PodSpec) -> Result<Option<String>, Error> {
    match spec.own.as_ref().map(|own| own.domainname.as_str()) {
        None | Some("") => Ok(None),
        Some(name) => check_hostname(name).map(Some),
    }
}

/// The same files as those of a pod whose network it is in.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    [HOSTS, HOSTNAME, RESOLV_CONF].into_iter().try_for_each(|name| {
        let source = from.join(name);
        put(&to.join(name), &host_file(&source.to_string_lossy())?)
    })
}

/// Writes resolv.conf where it is, so that containers that have it mounted see it.
///
/// # Errors
/// As [`write`].
pub fn rewrite_resolv_conf(dns: Option<&Dns>, dir: &Path) -> Result<(), Error> {
    let path = dir.join(RESOLV_CONF);
    let text = resolv_text(dns)?;
    fs::write(&path, text).map_err(|source| Error::HostPath { operation: "write", path, source })
}

fn resolv_text(dns: Option<&Dns>) -> Result<Vec<u8>, Error> {
    match dns.filter(|dns| !is_empty(dns)) {
        Some(dns) => resolv_conf(dns).map(String::into_bytes),
        None => host_file("/etc/resolv.conf"),
    }
}

/// The name that processes of the pod see.
pub fn visible_hostname(spec: &PodSpec) -> Result<String, Error> {
    Ok(hostname(spec)?.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()))
}

fn check_hostname(name: &str) -> Result<String, Error> {
    let label = |part: &str| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !part.is_empty() && part.len() <= MAX_LABEL && part.bytes().all(word) && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.len() <= MAX_HOSTNAME && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    let why = "must be labels of letters, digits and `-`, joined by dots, of at most 64 bytes";
    Err(Error::PodFile { field: "hostname", value: cut(name), why })
}

/// hosts(5) of a pod with addresses of its own.
fn hosts<'a>(name: &str, ips: impl Iterator<Item = &'a IpAddr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for ip in ips {
        text.push_str(&format!("{ip}\t{name}\n"));
    }
    text
}

/// Names and addresses that a person wants there.
fn more_hosts(spec: &PodSpec) -> Result<String, Error> {
    let mut text = String::new();
    for (name, address) in spec.own.as_ref().map_or(&[][..], |own| &own.hosts) {
        if address.parse::<IpAddr>().is_err() {
            return Err(Error::PodFile { field: "extra host", value: cut(address), why: "must be an IP address" });
        }
        let name = check_hostname(name)?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

fn is_empty(dns: &Dns) -> bool {
    dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()
}

/// resolv.conf(5).
fn resolv_conf(dns: &Dns) -> Result<String, Error> {
    let refuse = |field, value: &str, why| Err(Error::PodFile { field, value: cut(value), why });
    for (field, list) in [("DNS server", &dns.servers), ("DNS search domain", &dns.searches), ("DNS option", &dns.options)] {
        if list.len() > MAX_ENTRIES {
            return refuse(field, &list.len().to_string(), "is more than 64 of them");
        }
    }
    let word = |text: &str, more: &[char]| {
        !text.is_empty() && text.len() <= MAX_DOMAIN && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    if let Some(bad) = dns.searches.iter().find(|domain| !word(domain, &['.', '-', '_'])) {
        return refuse("DNS search domain", bad, "must be labels of letters, digits, `-` and `_`, joined by dots");
    }
    if let Some(bad) = dns.options.iter().find(|option| !word(option, &[':', '-', '_', '.'])) {
        return refuse("DNS option", bad, "must be NAME or NAME:VALUE of letters, digits, `-`, `_` and `.`");
    }
    let mut text = String::new();
    let line = |text: &mut String, key: &str, value: &str| text.push_str(&format!("{key} {value}\n"));
    if !dns.searches.is_empty() {
        line(&mut text, "search", &dns.searches.join(" "));
    }
    for server in &dns.servers {
        // A zone names the interface of a link-local address.
        let (address, zone) = server.split_once('%').map_or((server.as_str(), None), |(address, zone)| (address, Some(zone)));
        if address.parse::<IpAddr>().is_err() || zone.is_some_and(|zone| !word(zone, &['.', '-', '_'])) {
            return refuse("DNS server", server, "must be an IP address");
        }
        line(&mut text, "nameserver", server);
    }
    if !dns.options.is_empty() {
        line(&mut text, "options", &dns.options.join(" "));
    }
    Ok(text)
}

/// A file of the host; empty if it is not there.
fn host_file(path: &str) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::HostPath { operation: "read", path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_HOST_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        // Whatever our umask is, every user of the container has to read it.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(bytes)?;
        fs::rename(&new, path)
    })();
    written.map_err(|source| Error::HostPath { operation: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use model::pod::NamespaceMode;

    use super::*;
    use crate::spec::tests::pod;

    fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> Option<Dns> {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Some(Dns { servers: strings(servers), searches: strings(searches), options: strings(options) })
    }

    #[test]
    fn golden_files() {
        let directory = tempfile::tempdir().unwrap();
        let read = |file| fs::read_to_string(directory.path().join(file)).unwrap();
        let spec = PodSpec {
            hostname: "web-0".into(),
            dns: dns(&["10.96.0.10", "fe80::1%eth0"], &["ns.svc.cluster.local", "svc.cluster.local"], &["ndots:5", "edns0"]),
            ..pod()
        };
        let network = Network::Pod { ip: "10.0.0.7".parse().unwrap(), additional: vec!["fd00::7".parse().unwrap()] };
        write(&spec, &network, directory.path()).unwrap();
        assert_eq!(read(HOSTNAME), "web-0\n");
        assert!(read(HOSTS).starts_with("127.0.0.1\tlocalhost\n") && read(HOSTS).ends_with("10.0.0.7\tweb-0\nfd00::7\tweb-0\n"));
        assert_eq!(
            read(RESOLV_CONF),
            "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\noptions ndots:5 edns0\n"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        let mode = fs::metadata(directory.path().join(HOSTS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        write(&PodSpec { dns: dns(&[], &[], &[]), ..spec }, &Network::Host, directory.path()).unwrap();
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(read(RESOLV_CONF), host);
    }

    #[test]
    fn the_hostname_is_the_clients_or_the_pods_or_the_nodes() {
        let named = |hostname: &str, name: &str| {
            let mut spec = PodSpec { hostname: hostname.into(), ..pod() };
            spec.key.name = name.into();
            super::hostname(&spec)
        };
        assert_eq!(named("h", "p").unwrap().as_deref(), Some("h"));
        assert_eq!(named("", "p").unwrap().as_deref(), Some("p"));
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(named("", &long).unwrap(), Some("a".repeat(62)));
        let mut host = pod();
        host.namespaces.network = NamespaceMode::Node;
        assert_eq!(hostname(&host).unwrap(), None);
        assert!(!visible_hostname(&host).unwrap().is_empty());
    }

    #[test]
    fn ex_18_line_breaks_and_other_tricks_are_refused() {
        for bad in ["a\nb", "a\r", "a\0", "a b", "a:b", "a\u{2028}b", "-a", "a-", ".a", "a..b", "a#", &"a".repeat(65), "\u{e4}"] {
            assert!(hostname(&PodSpec { hostname: bad.into(), ..pod() }).is_err(), "{bad:?}");
        }
        for bad in ["a\nnameserver 6.6.6.6", "a b", "", "a\t", "a\u{2028}", "#", &"a".repeat(254)] {
            assert!(resolv_conf(&dns(&[], &[bad], &[]).unwrap()).is_err(), "search {bad:?}");
            assert!(resolv_conf(&dns(&[], &[], &[bad]).unwrap()).is_err(), "option {bad:?}");
            assert!(resolv_conf(&dns(&[bad], &[], &[]).unwrap()).is_err(), "server {bad:?}");
        }
        for bad in ["8.8.8.8 ", "fe80::1%eth0\n", "fe80::1%", "dns.example"] {
            assert!(resolv_conf(&dns(&[bad], &[], &[]).unwrap()).is_err(), "server {bad:?}");
        }
        assert!(resolv_conf(&dns(&["8.8.8.8"; 65], &[], &[]).unwrap()).is_err());
    }
}
