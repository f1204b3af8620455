//! `creel ps`: docker's table, and every field of its templates.

use api::creel::{
    ContainerState, ContainerSummary, Filter, Health, ListContainersRequest, PublishedPort, container_state::Status,
    health::Status as HealthStatus,
};
use serde_json::{Value, json};

use super::{args::Ps, options::wrong};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    output, time,
};

/// Lists containers.
pub(super) async fn list(client: &mut Client, format: &Format, args: &Ps) -> Result<Exit, Error> {
    let request = ListContainersRequest {
        all: args.all,
        filters: filters(&args.filter)?,
        last: if args.latest { 1 } else { args.last.unwrap_or(0) },
        size: args.size,
        pods: args.pods,
    };
    let containers = client.containers.list(request).await.map_err(error::daemon)?.into_inner().containers;
    if args.quiet && format.is_table() {
        output::lines(containers.iter().map(|container| id(container, args)))?;
        return Ok(Exit(0));
    }
    let rows: Vec<Value> = containers.iter().map(|container| value(container, args)).collect();
    format.print(&rows, || table(&rows, args))?;
    Ok(Exit(0))
}

/// `KEY=VALUE` of --filter.
pub(crate) fn filters(texts: &[String]) -> Result<Vec<Filter>, Error> {
    let filter = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Filter { key: key.trim().to_owned(), value: value.trim().to_owned() }),
        _ => Err(wrong("--filter", text, "invalid argument: bad format of filter (expected name=value)")),
    };
    texts.iter().map(filter).collect()
}

fn table(rows: &[Value], args: &Ps) -> String {
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
        ("NAMES", "Names"),
    ];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    if args.pods {
        columns.push(("POD", "Pod"));
    }
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let row = |row: &Value| columns.iter().map(|(_, key)| row[*key].as_str().unwrap_or_default().to_owned()).collect();
    output::table(&heads, &rows.iter().map(row).collect::<Vec<Vec<String>>>())
}

fn id(container: &ContainerSummary, args: &Ps) -> String {
    if args.no_trunc { container.id.clone() } else { output::short(&container.id) }
}

/// A container with docker's names for everything.
fn value(container: &ContainerSummary, args: &Ps) -> Value {
    let labels: Vec<String> = container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let state = container.state.clone().unwrap_or_default();
    let image = match container.image.strip_prefix("sha256:") {
        Some(_) if !args.no_trunc => output::short(&container.image),
        _ => container.image.clone(),
    };
    let mounts: Vec<String> = container.mounts.iter().map(|mount| cut(mount, 15, args.no_trunc)).collect();
    json!({
        "ID": id(container, args),
        "Image": image,
        "ImageID": container.image_id,
        "Command": format!("\"{}\"", cut(&one_line(&container.command.join(" ")), 20, args.no_trunc)),
        "CreatedAt": time::local(container.created_at),
        "RunningFor": format!("{} ago", output::age(container.created_at)),
        "State": state_word(&state),
        "Status": status(&state),
        "Ports": ports(&container.ports),
        "Names": container.name,
        "Labels": labels.join(","),
        "Networks": container.networks.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": container.mounts.iter().filter(|mount| !mount.starts_with('/')).count().to_string(),
        "Size": format!("{} (virtual {})", output::bytes(container.size_rw), output::bytes(container.size_root)),
        "Pod": container.pod,
        "PodID": container.pod_id,
    })
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most so many characters, the last of them dots.
fn cut(text: &str, most: usize, whole: bool) -> String {
    if whole || text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

/// docker's word for a state.
pub(super) fn state_word(state: &ContainerState) -> &'static str {
    match state.status() {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Exited => "exited",
        Status::Removing => "removing",
        Status::Dead | Status::Unspecified => "dead",
    }
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`.
pub(super) fn status(state: &ContainerState) -> String {
    let (up, down) = (output::age(state.started_at), output::age(state.finished_at));
    match state.status() {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {up}{}", health(state)),
        Status::Paused => format!("Up {up} (Paused)"),
        Status::Restarting => format!("Restarting ({}) {down} ago", state.exit_code),
        Status::Exited => format!("Exited ({}) {down} ago", state.exit_code),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead | Status::Unspecified => "Dead".to_owned(),
    }
}

/// ` (healthy)`, where somebody looks.
fn health(state: &ContainerState) -> &'static str {
    match state.health.as_ref().map(Health::status) {
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
        Some(HealthStatus::Unspecified) | None => "",
    }
}

/// `0.0.0.0:8080->80/tcp, 90/udp`; ranges that go together are one.
fn ports(ports: &[PublishedPort]) -> String {
    let mut sorted: Vec<&PublishedPort> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.host_ip.clone(), port.protocol.clone(), port.container_port, port.host_port));
    let mut groups: Vec<(&PublishedPort, &PublishedPort)> = Vec::new();
    for port in sorted {
        let follows = |first: &PublishedPort, last: &PublishedPort| {
            (&last.host_ip, &last.protocol) == (&port.host_ip, &port.protocol)
                && port.container_port == last.container_port + 1
                && (port.host_port == 0 && first.host_port == 0 || first.host_port > 0 && port.host_port == last.host_port + 1)
        };
        match groups.last_mut() {
            Some((first, last)) if follows(first, last) => *last = port,
            _ => groups.push((port, port)),
        }
    }
    let span = |first: u32, last: u32| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let text = |(first, last): &(&PublishedPort, &PublishedPort)| {
        let inside = format!("{}/{}", span(first.container_port, last.container_port), first.protocol);
        match first.host_port {
            0 => inside,
            port => format!("{}->{inside}", address(&first.host_ip, &span(port, last.host_port))),
        }
    };
    groups.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `IP:PORT`, an IPv6 address in brackets.
pub(super) fn address(ip: &str, port: &str) -> String {
    match ip {
        "" => format!("0.0.0.0:{port}"),
        ip if ip.contains(':') => format!("[{ip}]:{port}"),
        ip => format!("{ip}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn ago(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_nanos()).unwrap() - seconds * 1_000_000_000
    }

    fn args() -> Ps {
        Ps { all: false, quiet: false, last: None, latest: false, size: false, no_trunc: false, pods: false, filter: Vec::new() }
    }

    fn port(container: u32, host: u32) -> PublishedPort {
        let host_ip = if host == 0 { String::new() } else { "0.0.0.0".to_owned() };
        PublishedPort { container_port: container, protocol: "tcp".into(), host_ip, host_port: host }
    }

    #[test]
    fn the_table() {
        let state = |status: Status| ContainerState {
            exit_code: 3,
            started_at: ago(7300),
            finished_at: ago(130),
            status: status.into(),
            ..Default::default()
        };
        let container = |name: &str, status, ports| ContainerSummary {
            id: "ab".repeat(32),
            name: name.into(),
            image: "busybox:1.35".into(),
            command: vec!["sh".into(), "-c".into(), "echo a\necho long".into()],
            created_at: ago(90_000),
            state: Some(state(status)),
            ports,
            ..Default::default()
        };
        let all = [
            container("one", Status::Running, vec![port(80, 8080), port(81, 8081), port(90, 0)]),
            container("two", Status::Exited, Vec::new()),
            container("three", Status::Paused, Vec::new()),
        ];
        let rows: Vec<Value> = all.iter().map(|container| value(container, &args())).collect();
        let expected = "\
CONTAINER ID   IMAGE          COMMAND                  CREATED        STATUS                     PORTS                                  NAMES
abababababab   busybox:1.35   \"sh -c echo a echo l…\"   25 hours ago   Up 2 hours                 90/tcp, 0.0.0.0:8080-8081->80-81/tcp   one
abababababab   busybox:1.35   \"sh -c echo a echo l…\"   25 hours ago   Exited (3) 2 minutes ago                                          two
abababababab   busybox:1.35   \"sh -c echo a echo l…\"   25 hours ago   Up 2 hours (Paused)                                               three
";
        assert_eq!(table(&rows, &args()), expected);
    }

    #[test]
    fn ports_and_filters() {
        assert_eq!(ports(&[port(80, 0), port(81, 0), port(83, 0)]), "80-81/tcp, 83/tcp");
        assert_eq!(address("::1", "80"), "[::1]:80");
        assert_eq!(filters(&["a=b=c".into()]).unwrap()[0].value, "b=c");
        assert!(filters(&["a".into()]).is_err());
        assert_eq!(cut("abcdef", 4, false), "abc…");
    }
}
