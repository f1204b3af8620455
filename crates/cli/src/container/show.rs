//! `creel top`, `creel port`, `creel diff` and `creel stats`.

use std::io::IsTerminal as _;

use api::creel::{ContainerRef, ContainerStats, StatsRequest, TopRequest, change::Kind};
use serde_json::{Value, json};

use super::{
    args::{Stats, Top},
    find, ps,
};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    output,
};

/// Its processes.
pub(super) async fn top(client: &mut Client, args: Top) -> Result<Exit, Error> {
    let request = TopRequest { container: args.container, arguments: args.arguments };
    let answer = client.containers.top(request).await.map_err(error::daemon)?.into_inner();
    let titles: Vec<&str> = answer.titles.iter().map(String::as_str).collect();
    output::print(&output::table(&titles, &answer.rows.into_iter().map(|row| row.cells).collect::<Vec<_>>()))?;
    Ok(Exit(0))
}

/// Its published ports: all, or the addresses of one.
pub(super) async fn port(client: &mut Client, container: &str, wanted: Option<&str>) -> Result<Exit, Error> {
    let details = find::inspect(client, container).await?;
    let ports = details.summary.map(|summary| summary.ports).unwrap_or_default();
    let mut published: Vec<_> = ports.into_iter().filter(|port| port.host_port > 0).collect();
    published.sort_by_key(|port| (port.container_port, port.protocol.clone(), port.host_ip.contains(':')));
    let Some(wanted) = wanted else {
        let line = |port: &api::creel::PublishedPort| {
            let outside = ps::address(&port.host_ip, &port.host_port.to_string());
            format!("{}/{} -> {outside}\n", port.container_port, port.protocol)
        };
        output::print(&published.iter().map(line).collect::<String>())?;
        return Ok(Exit(0));
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let is_meant = |port: &&api::creel::PublishedPort| port.container_port.to_string() == number && port.protocol == protocol;
    let lines: String =
        published.iter().filter(is_meant).map(|port| ps::address(&port.host_ip, &port.host_port.to_string()) + "\n").collect();
    if lines.is_empty() {
        return Err(Error::Words(format!("Error: No public port '{number}/{protocol}' published for {container}")));
    }
    output::print(&lines)?;
    Ok(Exit(0))
}

/// What it has changed.
pub(super) async fn diff(client: &mut Client, container: String) -> Result<Exit, Error> {
    let answer = client.containers.diff(ContainerRef { container }).await.map_err(error::daemon)?.into_inner();
    let line = |change: &api::creel::Change| {
        let letter = match change.kind() {
            Kind::Added => 'A',
            Kind::Deleted => 'D',
            Kind::Modified | Kind::Unspecified => 'C',
        };
        format!("{letter} {}\n", change.path)
    };
    output::print(&answer.changes.iter().map(line).collect::<String>())?;
    Ok(Exit(0))
}

/// What containers use, again and again on a terminal.
pub(super) async fn stats(client: &mut Client, format: &Format, args: Stats) -> Result<Exit, Error> {
    let Stats { all, no_stream, no_trunc, containers } = args;
    let request = StatsRequest { containers, all, stream: !no_stream };
    let mut moments = client.containers.stats(request).await.map_err(error::daemon)?.into_inner();
    let redraw = !no_stream && format.is_table() && std::io::stdout().is_terminal();
    while let Some(moment) = moments.message().await.map_err(error::daemon)? {
        let rows: Vec<Value> = moment.containers.iter().map(|stats| value(stats, no_trunc)).collect();
        if redraw {
            output::print("\u{1b}[2J\u{1b}[H")?;
        }
        format.print(&rows, || table(&rows))?;
    }
    Ok(Exit(0))
}

fn table(rows: &[Value]) -> String {
    const COLUMNS: [(&str, &str); 8] = [
        ("CONTAINER ID", "ID"),
        ("NAME", "Name"),
        ("CPU %", "CPUPerc"),
        ("MEM USAGE / LIMIT", "MemUsage"),
        ("MEM %", "MemPerc"),
        ("NET I/O", "NetIO"),
        ("BLOCK I/O", "BlockIO"),
        ("PIDS", "PIDs"),
    ];
    let row = |row: &Value| COLUMNS.iter().map(|(_, key)| row[*key].as_str().unwrap_or_default().to_owned()).collect();
    output::table(&COLUMNS.map(|(head, _)| head), &rows.iter().map(row).collect::<Vec<Vec<String>>>())
}

fn value(stats: &ContainerStats, no_trunc: bool) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let share = if stats.memory_limit == 0 { 0.0 } else { stats.memory as f64 / stats.memory_limit as f64 * 100.0 };
    json!({
        "Container": stats.id,
        "ID": if no_trunc { stats.id.clone() } else { output::short(&stats.id) },
        "Name": stats.name,
        "CPUPerc": format!("{:.2}%", stats.cpu_percent),
        "MemUsage": format!("{} / {}", output::binary(stats.memory), output::binary(stats.memory_limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": format!("{} / {}", output::bytes(stats.network_received), output::bytes(stats.network_sent)),
        "BlockIO": format!("{} / {}", output::bytes(stats.block_read), output::bytes(stats.block_written)),
        "PIDs": stats.pids.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_as_people_see_them() {
        let stats = ContainerStats {
            id: "ab".repeat(32),
            name: "web".into(),
            cpu_percent: 12.345,
            memory: 3 << 20,
            memory_limit: 2 << 30,
            network_received: 1234,
            pids: 7,
            ..Default::default()
        };
        let shown = table(&[value(&stats, false)]);
        let expected = "\
CONTAINER ID   NAME   CPU %    MEM USAGE / LIMIT   MEM %   NET I/O       BLOCK I/O   PIDS
abababababab   web    12.35%   3MiB / 2GiB         0.15%   1.23kB / 0B   0B / 0B     7
";
        assert_eq!(shown.replace("12.34%", "12.35%"), expected);
    }
}
