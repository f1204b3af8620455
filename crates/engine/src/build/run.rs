//! RUN: a program runs on the layers so far, and what it has written is the next one.

use dockerfile::{Command, Flag, Run};
use model::ErrorKind;

use super::{
    BuildNetwork,
    graph::Build,
    key::Key,
    refuse,
    stages::{PREDEFINED, Spot},
    state::State,
    steps::{Written, not_yet},
};
use crate::{error::Error, user::Once};

impl Build<'_> {
    pub(super) async fn run(&self, state: &mut State, run: &Run, spot: Spot<'_>) -> Result<(), Error> {
        let network = self.network(&run.flags)?;
        let command = state.changed.command_line(&script(run)?);
        if command.is_empty() {
            return Err(refuse(ErrorKind::InvalidArgument, "RUN without a command"));
        }
        let mut env = state.environment();
        let key = Key::new("RUN", &state.layers)
            .list(&command)
            .list(env.iter().flat_map(|(name, value)| [name, value]))
            .part(state.working_dir())
            .part(state.changed.of("User"))
            .part(network);
        let given = PREDEFINED.iter().filter_map(|name| Some(((*name).to_owned(), self.request.args.get(*name)?.clone())));
        let hidden: Vec<_> = given.filter(|(name, _)| !env.iter().any(|(known, _)| known == name)).collect();
        env.extend(hidden);
        let shown = shown(run, &command);
        let progress = self.begun(format!("{} RUN {shown}", self.place(spot))).await?;
        let said = history(&state.args(), &command);
        let once = Once {
            layers: state.layers.clone(),
            command,
            working_dir: state.working_dir().to_owned(),
            env,
            user: state.changed.of("User").to_owned(),
            network: network.to_owned(),
            latest: self.latest(state),
        };
        let work = self.ran(once, progress.number, &shown);
        self.ended(progress, self.make(state, key, &said, work)).await
    }

    /// What a container has written.
    async fn ran(&self, once: Once, step: u32, shown: &str) -> Result<Written, Error> {
        let (output, passed) = self.output(step);
        let latest = once.latest;
        let ran = self.inner.run_once(once, output).await;
        passed.await.ok();
        let ran = ran?;
        if ran.code == 0 {
            return Ok(Written { layer: ran.layer, newest: latest });
        }
        let why = if ran.message.is_empty() { String::new() } else { format!(": {}", ran.message) };
        let text = format!("process {shown:?} did not complete successfully: exit code: {}{why}", ran.code);
        Err(refuse(ErrorKind::FailedPrecondition, text))
    }

    fn network(&self, flags: &[Flag]) -> Result<&'static str, Error> {
        let asked = match self.request.network {
            BuildNetwork::Default => "default",
            BuildNetwork::None => "none",
            BuildNetwork::Host => "host",
        };
        let mut network = asked;
        for flag in flags {
            network = match (flag.name.as_str(), flag.value.as_deref()) {
                ("network", Some("default")) => asked,
                ("network", Some("none")) => "none",
                ("network", Some("host")) if asked == "host" => "host",
                ("network", Some("host")) => {
                    let why = "RUN --network=host: the build itself was not started with --network host";
                    return Err(refuse(ErrorKind::PermissionDenied, why));
                }
                ("network", value) => {
                    let why = format!("RUN --network={}: use default, none or host", value.unwrap_or_default());
                    return Err(refuse(ErrorKind::InvalidArgument, why));
                }
                (name, _) => return Err(not_yet(&format!("RUN --{name}"))),
            };
        }
        Ok(network)
    }
}

/// What the shell is given, heredocs and all: it knows them.
fn script(run: &Run) -> Result<Command, Error> {
    let Command::Shell(text) = &run.command else { return Ok(run.command.clone()) };
    let [first, ..] = run.heredocs.as_slice() else { return Ok(run.command.clone()) };
    let bare = text.trim_start_matches(['<', '-']).trim_matches(['"', '\'']);
    if bare == first.name {
        if first.content.starts_with("#!") {
            return Err(not_yet("RUN of a heredoc that begins with #!"));
        }
        return Ok(Command::Shell(first.content.clone()));
    }
    let documents = run.heredocs.iter().map(|heredoc| format!("{}{}\n", heredoc.content, heredoc.name));
    Ok(Command::Shell(format!("{text}\n{}", documents.collect::<String>())))
}

/// A command as it is shown.
fn shown(run: &Run, command: &[String]) -> String {
    match &run.command {
        Command::Shell(text) => text.clone(),
        Command::Exec(_) => command.join(" "),
    }
}

/// As docker's history has it: the arguments that count, and what was run.
fn history(args: &[(String, String)], command: &[String]) -> String {
    let command = command.join(" ");
    if args.is_empty() {
        return format!("RUN {command}");
    }
    let args: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("RUN |{} {} {command}", args.len(), args.join(" "))
}

#[cfg(test)]
mod tests {
    use dockerfile::Instruction;

    use super::*;

    fn run(text: &str) -> Result<Command, String> {
        let file = dockerfile::parse(format!("FROM a\n{text}\n").as_bytes()).unwrap();
        let Instruction::Run(run) = &file.instructions[1].instruction else { panic!("not RUN") };
        script(run).map_err(|e| e.chain())
    }

    #[test]
    fn heredocs_are_the_shells() {
        assert_eq!(run("RUN <<EOF\necho $A\necho b\nEOF"), Ok(Command::Shell("echo $A\necho b\n".into())));
        assert_eq!(run("RUN cat <<A > /x\nhello\nA"), Ok(Command::Shell("cat <<A > /x\nhello\nA\n".into())));
        assert!(run("RUN <<EOF\n#!/bin/python\nEOF").unwrap_err().contains("not supported yet"));
    }

    #[test]
    fn history_has_its_arguments() {
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()];
        assert_eq!(history(&[], &command), "RUN /bin/sh -c make");
        assert_eq!(history(&[("A".to_owned(), "1".to_owned())], &command), "RUN |1 A=1 /bin/sh -c make");
    }
}
