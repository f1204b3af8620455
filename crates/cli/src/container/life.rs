//! Commands that do one thing to each of some containers, and `creel container prune`.

use api::creel::{self as own, wait_container_request::Condition};
use tonic::{Code, Status};

use super::{
    args::{Kill, Names, PruneContainers, Rm, Stop, Update},
    options,
};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    output, rmi, time,
};

/// Prints what succeeded at once, and what failed at the end; 1 if something did.
struct Report {
    failed: Vec<Status>,
}

impl Report {
    fn new() -> Self {
        Self { failed: Vec::new() }
    }

    fn take<T>(&mut self, name: &str, result: Result<T, Status>) -> Result<(), Error> {
        self.line(name.to_owned(), result)
    }

    fn line<T>(&mut self, line: String, result: Result<T, Status>) -> Result<(), Error> {
        match result {
            Ok(_) => output::print(&(line + "\n")),
            Err(status) => {
                self.failed.push(status);
                Ok(())
            }
        }
    }

    fn end(self) -> Exit {
        let failed = !self.failed.is_empty();
        for status in self.failed {
            output::note(&error::daemon(status).chain());
        }
        Exit(u8::from(failed))
    }
}

pub(super) async fn stop(client: &mut Client, args: Stop) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        report.take(container, client.containers.stop(stopping(&args, container)).await)?;
    }
    Ok(report.end())
}

pub(super) async fn restart(client: &mut Client, args: Stop) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        report.take(container, client.containers.restart(stopping(&args, container)).await)?;
    }
    Ok(report.end())
}

fn stopping(args: &Stop, container: &str) -> own::StopContainerRequest {
    own::StopContainerRequest {
        container: container.to_owned(),
        timeout: args.timeout,
        signal: args.signal.clone().unwrap_or_default(),
    }
}

pub(super) async fn kill(client: &mut Client, args: Kill) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        let request = own::KillContainerRequest { container: container.clone(), signal: args.signal.clone() };
        report.take(container, client.containers.kill(request).await)?;
    }
    Ok(report.end())
}

pub(super) async fn pause(client: &mut Client, args: Names) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        report.take(container, client.containers.pause(own::ContainerRef { container: container.clone() }).await)?;
    }
    Ok(report.end())
}

pub(super) async fn unpause(client: &mut Client, args: Names) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        report.take(container, client.containers.unpause(own::ContainerRef { container: container.clone() }).await)?;
    }
    Ok(report.end())
}

pub(super) async fn wait(client: &mut Client, args: Names) -> Result<Exit, Error> {
    let mut report = Report::new();
    for container in &args.containers {
        let request = own::WaitContainerRequest { container: container.clone(), condition: Condition::NotRunning.into() };
        let answer = client.containers.wait(request).await;
        let line = answer.as_ref().map(|answer| answer.get_ref().exit_code.to_string()).unwrap_or_default();
        report.line(line, answer)?;
    }
    Ok(report.end())
}

pub(super) async fn remove(client: &mut Client, args: Rm) -> Result<Exit, Error> {
    let Rm { force, volumes, containers } = args;
    let mut report = Report::new();
    for container in containers {
        let name = container.trim_matches('/').to_owned();
        match client.containers.remove(own::RemoveContainerRequest { container, force, volumes }).await {
            // Forced removal of what is not there is not a failure.
            Err(status) if force && status.code() == Code::NotFound => output::note(&error::daemon(status).chain()),
            answer => report.take(&name, answer)?,
        }
    }
    Ok(report.end())
}

pub(super) async fn rename(client: &mut Client, container: String, name: String) -> Result<Exit, Error> {
    client.containers.rename(own::RenameContainerRequest { container, name }).await.map_err(error::daemon)?;
    Ok(Exit(0))
}

pub(super) async fn update(client: &mut Client, args: Update) -> Result<Exit, Error> {
    let limits = options::limits(&args.limits)?;
    let restart = args.restart.as_deref().map(options::restart).transpose()?;
    if limits == own::Limits::default() && restart.is_none() {
        return Err(Error::Words("you must provide one or more flags when using this command.".to_owned()));
    }
    let mut report = Report::new();
    let mut warnings = Vec::new();
    for container in &args.containers {
        let request =
            own::UpdateContainerRequest { container: container.clone(), limits: Some(limits.clone()), restart: restart.clone() };
        let answer = client.containers.update(request).await;
        if let Ok(answer) = &answer {
            warnings.extend(answer.get_ref().warnings.iter().cloned());
        }
        report.take(container, answer)?;
    }
    for warning in warnings {
        output::note(&warning);
    }
    Ok(report.end())
}

/// Removes all that do not run, after asking.
pub(super) async fn prune(client: &mut Client, args: PruneContainers) -> Result<Exit, Error> {
    let request = pruned(&args.filter)?;
    if !args.force && !rmi::confirmed("WARNING! This will remove all stopped containers.")? {
        return Ok(Exit(0));
    }
    let answer = client.containers.prune(request).await.map_err(error::daemon)?.into_inner();
    if !answer.ids.is_empty() {
        output::print(&format!("Deleted Containers:\n{}\n\n", answer.ids.join("\n")))?;
    }
    output::print(&format!("Total reclaimed space: {}\n", output::bytes(answer.reclaimed)))?;
    Ok(Exit(0))
}

fn pruned(filters: &[String]) -> Result<own::PruneContainersRequest, Error> {
    let mut request = own::PruneContainersRequest::default();
    for filter in filters {
        match filter.split_once('=') {
            Some(("until", value)) => {
                request.until = time::point(value).ok_or_else(|| options::wrong("--filter", filter, "not a time or a duration"))?;
            }
            Some(("label!", value)) => request.without_labels.push(value.to_owned()),
            Some(("label", value)) => request.labels.push(value.to_owned()),
            _ => return Err(options::wrong("--filter", filter, "the filters are until, label and label!")),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pruned() {
        let request = pruned(&["until=5".into(), "label=a=b".into(), "label!=c".into()]).unwrap();
        assert_eq!((request.until, request.labels.len(), request.without_labels.len()), (5, 1, 1));
        assert!(pruned(&["until=x".into()]).is_err() && pruned(&["name=x".into()]).is_err());
    }
}
