//! `creel logs`.

use std::fs::File;

use api::runtime as cri;

use crate::{
    args::Logs,
    client::Client,
    error::{self, Error, Exit},
    find,
    follow::{self, LogReader},
};

/// Prints a container's log.
pub(crate) async fn logs(client: &mut Client, args: &Logs) -> Result<Exit, Error> {
    let id = find::container(client, &args.container).await?.id;
    let path = log_path(client, &id).await?;
    let file = File::open(&path).map_err(error::io(format!("open {path}")))?;
    let mut reader = LogReader::new(file, args.timestamps);
    if let Some(lines) = args.tail {
        reader.skip_to_tail(lines).map_err(error::io(format!("read {path}")))?;
    }
    if args.follow {
        follow::until_exit(client, &id, &path, &mut reader).await?;
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
