//! `creel logs`: what a container has written, its two streams kept apart.

use std::io::{self, Write as _};

use api::creel::{LogEntry, LogsRequest};
use tonic::Code;

use super::{args::Logs, options::wrong};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    time,
};

/// Prints a container's log.
pub(super) async fn logs(client: &mut Client, args: &Logs) -> Result<Exit, Error> {
    let tail = match args.tail.as_str() {
        "all" => None,
        // docker's way to say all.
        negative if negative.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok()) => None,
        number => Some(number.parse().map_err(|_| wrong("--tail", number, "neither a number nor all"))?),
    };
    let request = LogsRequest {
        container: args.container.clone(),
        stdout: true,
        stderr: true,
        follow: args.follow,
        tail,
        since: instant("--since", args.since.as_deref())?,
        until: instant("--until", args.until.as_deref())?,
    };
    let missing = match client.containers.logs(request.clone()).await {
        Ok(answer) => return print(answer.into_inner(), args.timestamps).await,
        Err(status) if status.code() == Code::NotFound => status,
        Err(status) => return Err(error::daemon(status)),
    };
    match crate::find::container(client, &args.container).await {
        Ok(container) => {
            // A kubelet's container by its name; the daemon knows it by its id.
            let request = LogsRequest { container: container.id, ..request };
            print(client.containers.logs(request).await.map_err(error::daemon)?.into_inner(), args.timestamps).await
        }
        Err(Error::Missing { .. }) => Err(error::daemon(missing)),
        Err(other) => Err(other),
    }
}

/// Nanoseconds since 1970; 0 for none.
pub(super) fn instant(option: &'static str, text: Option<&str>) -> Result<i64, Error> {
    let Some(text) = text else { return Ok(0) };
    time::nanoseconds(text).ok_or_else(|| wrong(option, text, "neither a time nor how long ago it was"))
}

async fn print(mut entries: tonic::Streaming<LogEntry>, timestamps: bool) -> Result<Exit, Error> {
    // Whether the next entry of a stream goes on with a line.
    let mut within = [false, false];
    while let Some(entry) = entries.message().await.map_err(error::daemon)? {
        let stream = &mut within[usize::from(entry.stderr)];
        let mut line = Vec::with_capacity(entry.data.len() + 32);
        if timestamps && !*stream {
            line.extend_from_slice(time::rfc3339(entry.time).as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(&entry.data);
        *stream = !entry.data.ends_with(b"\n");
        let written = if entry.stderr { io::stderr().write_all(&line) } else { put(&line) };
        written.map_err(error::io("write to standard output"))?;
    }
    Ok(Exit(0))
}

fn put(line: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line)?;
    out.flush()
}
