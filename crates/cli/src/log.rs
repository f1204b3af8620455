//! `creel logs` of a container of a CRI client's pod: its file, in CRI's format.

use std::fs::File;

use api::runtime as cri;

use crate::{
    client::Client,
    container::args::Logs,
    error::{self, Error, Exit},
    follow::{self, LogReader},
};

/// Prints a container's log.
pub(crate) async fn logs(client: &mut Client, args: &Logs, tail: Option<u64>, id: &str) -> Result<Exit, Error> {
    let path = log_path(client, id).await?;
    let file = File::open(&path).map_err(error::io(format!("open {path}")))?;
    let mut reader = LogReader::new(file, args.timestamps);
    if let Some(lines) = tail {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        reader.skip_to_tail(lines).map_err(error::io(format!("read {path}")))?;
    }
    if args.follow {
        follow::until_exit(client, id, &path, &mut reader).await?;
    } else {
        reader.print_new().map_err(error::io(format!("print {path}")))?;
    }
    Ok(Exit(0))
}

async fn log_path(client: &mut Client, id: &str) -> Result<String, Error> {
    match follow::status(client, id).await? {
        cri::ContainerStatus { log_path, .. } if log_path.is_empty() => {
            Err(Error::Refused { name: id.to_owned(), why: "the container was made without a log" })
        }
        cri::ContainerStatus { log_path, .. } => Ok(log_path),
    }
}
