//! Containers of people: every command about them.

pub(crate) mod args;
pub(crate) mod complete;
pub(crate) mod cp;
pub(crate) mod events;
pub(crate) mod find;
pub(crate) mod flags;
pub(crate) mod inspect;
mod life;
mod logs;
mod mounts;
pub(crate) mod options;
mod pod;
mod ps;
mod request;
mod run;
mod show;
mod streams;

use self::args::{Container, Life, Ps};
use crate::{
    client::Client,
    error::{Error, Exit},
    exec,
    format::Format,
};

/// `creel container ...`
pub(crate) async fn container(client: &mut Client, format: &Format, command: Container) -> Result<Exit, Error> {
    match command {
        Container::Life(command) => life(client, format, command).await,
        Container::Ls(args) => ps(client, format, &args).await,
        Container::Inspect(args) => inspect::containers(client, format, args).await,
        Container::Prune(args) => life::prune(client, args).await,
    }
}

/// `creel ps`
pub(crate) async fn ps(client: &mut Client, format: &Format, args: &Ps) -> Result<Exit, Error> {
    ps::list(client, format, args).await
}

/// The commands that are there with and without `container`.
pub(crate) async fn life(client: &mut Client, format: &Format, command: Life) -> Result<Exit, Error> {
    match command {
        Life::Run(args) => run::run(client, *args).await.map_err(Error::of_run),
        Life::Create(args) => run::create(client, *args).await,
        Life::Start(args) => run::start(client, args).await,
        Life::Stop(args) => life::stop(client, args).await,
        Life::Restart(args) => life::restart(client, args).await,
        Life::Kill(args) => life::kill(client, args).await,
        Life::Pause(args) => life::pause(client, args).await,
        Life::Unpause(args) => life::unpause(client, args).await,
        Life::Wait(args) => life::wait(client, args).await,
        Life::Rm(args) => life::remove(client, args).await,
        Life::Rename { container, name } => life::rename(client, container, name).await,
        Life::Update(args) => life::update(client, args).await,
        Life::Logs(args) => logs::logs(client, &args).await,
        Life::Exec(args) => exec::exec(client, args).await,
        Life::Attach(args) => run::attach(client, args).await,
        Life::Cp(args) => cp::copy(client, args).await,
        Life::Diff { container } => show::diff(client, container).await,
        Life::Top(args) => show::top(client, args).await,
        Life::Stats(args) => show::stats(client, format, args).await,
        Life::Port { container, port } => show::port(client, &container, port.as_deref()).await,
    }
}
