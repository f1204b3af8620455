//! Options of `creel run` that are a little language each.

use api::runtime as cri;

use crate::error::Error;

fn wrong(option: &'static str, value: &str, why: &str) -> Error {
    Error::Option { option, value: value.to_owned(), why: why.to_owned() }
}

/// A name that is also a host name and a directory: letters, digits, `_`, `.` and `-`, first a letter or digit.
pub(super) fn container_name(name: &str) -> Result<String, Error> {
    let word = |c: u8| c.is_ascii_alphanumeric();
    let fine = name.len() <= 63
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|c| word(c) || matches!(c, b'_' | b'.' | b'-'));
    if fine {
        Ok(name.to_owned())
    } else {
        Err(wrong("--name", name, "not up to 63 letters, digits, _ . and -, the first a letter or digit"))
    }
}

/// `NAME=VALUE`, or `NAME` for the value that it has here. A name without a value anywhere is left out, as docker does.
pub(super) fn env(text: &str, here: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Option<cri::KeyValue>, Error> {
    use std::os::unix::ffi::OsStringExt;
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
        None => (text, here(text).map(OsStringExt::into_vec)),
    };
    if name.is_empty() {
        return Err(wrong("--env", text, "a variable needs a name"));
    }
    Ok(value.map(|value| cri::KeyValue { key: name.to_owned(), value }))
}

/// `HOST:CONTAINER[:OPTIONS]`.
pub(super) fn volume(text: &str) -> Result<cri::Mount, Error> {
    let mut parts = text.split(':');
    let (host, container, options) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() || !host.starts_with('/') || !container.starts_with('/') {
        return Err(wrong("--volume", text, "not HOST:CONTAINER[:ro] with two absolute paths"));
    }
    let mut mount = cri::Mount { host_path: host.to_owned(), container_path: container.to_owned(), ..cri::Mount::default() };
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        match option {
            "ro" => mount.readonly = true,
            "rw" => mount.readonly = false,
            "rslave" => mount.propagation = cri::MountPropagation::PropagationHostToContainer.into(),
            "rshared" => mount.propagation = cri::MountPropagation::PropagationBidirectional.into(),
            "rprivate" => {}
            _ => return Err(wrong("--volume", text, "the options are ro, rw, rprivate, rslave and rshared")),
        }
    }
    Ok(mount)
}

/// `[IP:]HOST:CONTAINER[/PROTOCOL]`; an IPv6 address is in brackets.
pub(super) fn publish(text: &str) -> Result<cri::PortMapping, Error> {
    let bad = || wrong("--publish", text, "not [IP:]HOST:CONTAINER[/tcp|udp|sctp] with ports from 1 to 65535");
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), cri::Protocol::Tcp),
        Some((ports, "udp")) => (ports, cri::Protocol::Udp),
        Some((ports, "sctp")) => (ports, cri::Protocol::Sctp),
        Some(_) => return Err(bad()),
    };
    let (rest, container) = ports.rsplit_once(':').ok_or_else(bad)?;
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(bad());
    }
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).map(i32::from).ok_or_else(bad);
    Ok(cri::PortMapping {
        protocol: protocol.into(),
        container_port: port(container)?,
        host_port: port(host)?,
        host_ip: ip.to_owned(),
    })
}

/// `USER[:GID]`: the user by name or number, the group by number, which is all that CRI has.
pub(super) fn user(text: &str, context: &mut cri::LinuxContainerSecurityContext) -> Result<(), Error> {
    let number = |text: &str| text.parse::<u32>().ok().map(|id| cri::Int64Value { value: id.into() });
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() {
        return Err(wrong("--user", text, "a user is missing"));
    }
    match number(user) {
        Some(id) => context.run_as_user = Some(id),
        None => user.clone_into(&mut context.run_as_username),
    }
    if let Some(group) = group {
        context.run_as_group = Some(number(group).ok_or_else(|| wrong("--user", text, "the group has to be a number"))?);
    }
    Ok(())
}

/// Bytes with a unit of 1024: b, k, m, g, t; without a unit bytes.
pub(super) fn memory(text: &str) -> Result<i64, Error> {
    let bad = || wrong("--memory", text, "not a number with b, k, m, g or t");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: i64 = digits.parse().map_err(|_| bad())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(bad)?;
    // Less than this, and the process does not even start.
    if bytes < 512 << 10 {
        return Err(wrong("--memory", text, "less than 512k"));
    }
    Ok(bytes)
}

/// CFS quota in microseconds per period.
pub(super) fn cpus(number: f64, period: i64) -> Result<i64, Error> {
    if !(0.01..=4096.0).contains(&number) {
        return Err(wrong("--cpus", &number.to_string(), "not from 0.01 to 4096"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "both are small, see above")]
    Ok((number * period as f64).round() as i64)
}

/// `NAME=VALUE`, or `NAME`.
pub(super) fn label(text: &str) -> Result<(String, String), Error> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(wrong("--label", text, "a label needs a name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(container_name("a.b_c-1").is_ok());
        for bad in ["", "-a", "a b", "a/b", &"a".repeat(64)] {
            assert!(container_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables() {
        let here = |name: &str| (name == "HERE").then(|| "h".into());
        assert_eq!(env("A=b=c", here).unwrap().unwrap().value, b"b=c");
        assert_eq!(env("HERE", here).unwrap().unwrap().value, b"h");
        assert_eq!(env("NOWHERE", here).unwrap(), None);
        assert!(env("=x", here).is_err());
    }

    #[test]
    fn volumes() {
        let mount = volume("/a:/b:ro,rslave").unwrap();
        assert_eq!(
            (mount.host_path.as_str(), mount.container_path.as_str(), mount.readonly, mount.propagation),
            ("/a", "/b", true, 1)
        );
        for bad in ["/a", "a:/b", "/a:b", "/a:/b:zz", "/a:/b:ro:x", ""] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        for (text, ip, host, container, protocol) in [
            ("8080:80", "", 8080, 80, 0),
            ("8080:80/tcp", "", 8080, 80, 0),
            ("53:53/udp", "", 53, 53, 1),
            ("127.0.0.1:1:2", "127.0.0.1", 1, 2, 0),
            ("[::1]:1:2/sctp", "::1", 1, 2, 2),
        ] {
            let mapping = publish(text).unwrap();
            let got = (mapping.host_ip.as_str(), mapping.host_port, mapping.container_port, mapping.protocol);
            assert_eq!(got, (ip, host, container, protocol), "{text}");
        }
        for bad in ["80", "0:80", "80:70000", "x:80", "localhost:1:2", "1:2/icmp", ""] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users() {
        let mut context = cri::LinuxContainerSecurityContext::default();
        user("1000:50", &mut context).unwrap();
        assert_eq!((context.run_as_user.unwrap().value, context.run_as_group.unwrap().value), (1000, 50));
        let mut context = cri::LinuxContainerSecurityContext::default();
        user("nobody", &mut context).unwrap();
        assert_eq!((context.run_as_username.as_str(), context.run_as_user), ("nobody", None));
        assert!(user(":5", &mut context).is_err() && user("a:b", &mut context).is_err());
    }

    #[test]
    fn quantities() {
        assert_eq!(memory("512m").unwrap(), 512 << 20);
        assert_eq!(memory("1GiB").unwrap(), 1 << 30);
        for bad in ["", "m", "1x", "-1m", "100", "9999999999t", "1.5g"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert_eq!(cpus(1.5, 100_000).unwrap(), 150_000);
        assert!(cpus(0.0, 1).is_err() && cpus(f64::NAN, 1).is_err());
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
    }
}
