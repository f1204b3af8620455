//! `creel exec`: a command without input, whose output comes when it has ended.

use std::io::Write;

use api::runtime as cri;

use crate::{
    client::Client,
    error::{self, Error, Exit},
    find,
};

/// Runs it and passes output and exit code on.
pub(crate) async fn exec(client: &mut Client, timeout: u32, wanted: &str, cmd: Vec<String>) -> Result<Exit, Error> {
    let container_id = find::container(client, wanted).await?.id;
    let request = cri::ExecSyncRequest { container_id, cmd, timeout: timeout.into() };
    let answer = client.runtime.exec_sync(request).await.map_err(error::rpc(format!("exec in {wanted}")))?.into_inner();
    std::io::stdout().write_all(&answer.stdout).map_err(error::io("write to standard output"))?;
    std::io::stdout().flush().map_err(error::io("write to standard output"))?;
    std::io::stderr().write_all(&answer.stderr).map_err(error::io("write to standard error"))?;
    Ok(Exit(code(answer.exit_code)))
}

/// An exit code as a process can have it.
pub(crate) fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
