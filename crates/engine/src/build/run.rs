//! RUN: a program runs on the layers so far, and what it has written is the next one.

use std::sync::Arc;

use dockerfile::{Command, Flag, Heredoc, Run};
use model::ErrorKind;

use super::{
    BuildNetwork,
    graph::Build,
    key::Key,
    mounts::Mounts,
    refuse,
    stages::{PREDEFINED, Spot},
    state::State,
    steps::Written,
};
use crate::{error::Error, user::Once};

impl Build<'_> {
    pub(super) async fn run(&self, state: &mut State, run: &Run, spot: Spot<'_>) -> Result<(), Error> {
        self.check_runs_here(spot.stage)?;
        let network = self.network(&run.flags)?;
        let mut mounts = self.mounts(state, run, spot.stage).await?;
        let command = state.changed.command_line(&script(run, &mut mounts));
        if command.is_empty() {
            return Err(refuse(ErrorKind::InvalidArgument, "RUN without a command"));
        }
        let mut env = state.environment();
        let options = &self.request.run;
        let key = Key::new("RUN", &state.layers)
            .list(&command)
            .list(env.iter().flat_map(|(name, value)| [name, value]))
            .part(state.working_dir())
            .part(state.changed.of("User"))
            .part(network)
            .list(options.hosts.iter().flat_map(|(name, address)| [name, address]))
            .part(format!("{:?} {:?}", options.shm_size, options.rlimits));
        let key = mounts.count(key);
        let given = PREDEFINED.iter().filter_map(|name| Some(((*name).to_owned(), self.request.args.get(*name)?.clone())));
        // Files get no younger time than this: what notes times of files (compiled Python) is to know.
        let epoch = ("SOURCE_DATE_EPOCH".to_owned(), self.latest(state).to_string());
        let given = given.chain([epoch]);
        let hidden: Vec<_> = given.filter(|(name, _)| !env.iter().any(|(known, _)| known == name)).collect();
        env.extend(hidden);
        let progress = self.begun(format!("{} RUN {}", self.place(spot), shown(run, &command))).await?;
        let said = history(&state.args(), &command);
        let once = Once {
            layers: state.layers.clone(),
            command,
            working_dir: state.working_dir().to_owned(),
            env,
            user: state.changed.of("User").to_owned(),
            network: network.to_owned(),
            latest: self.latest(state),
            hosts: options.hosts.clone(),
            shm_size: options.shm_size,
            rlimits: options.rlimits.clone(),
            resources: options.resources.clone(),
            given: Arc::default(),
        };
        let work = self.ran(once, mounts, progress.number);
        self.ended(progress, self.make(state, key, &said, work)).await
    }

    /// What a container has written.
    async fn ran(&self, once: Once, mounts: Mounts, step: u32) -> Result<Written, Error> {
        let shown = once.command.join(" ");
        let once = Once { given: Arc::new(self.make_mounts(mounts).await?), ..once };
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
                ("security", Some("sandbox")) | ("mount", _) => network,
                ("security", Some("insecure")) => {
                    let why = "RUN --security=insecure: steps of builds are confined like any container, and nothing lifts that";
                    return Err(refuse(ErrorKind::PermissionDenied, why));
                }
                ("security", value) => {
                    let why = format!("RUN --security={}: use sandbox", value.unwrap_or_default());
                    return Err(refuse(ErrorKind::InvalidArgument, why));
                }
                ("device", value) => {
                    let device = value.unwrap_or_default();
                    let why = format!("RUN --device={device}: steps of builds get no devices: an image is not to depend on them");
                    return Err(refuse(ErrorKind::Unsupported, why));
                }
                (name, _) => return Err(refuse(ErrorKind::Unsupported, format!("RUN --{name}"))),
            };
        }
        Ok(network)
    }
}

/// What the shell is given, heredocs and all: it knows them. One that says what it is run by becomes a file.
fn script(run: &Run, mounts: &mut Mounts) -> Command {
    let Command::Shell(text) = &run.command else { return run.command.clone() };
    let [first, ..] = run.heredocs.as_slice() else { return run.command.clone() };
    if is_bare(text, first) {
        let script = first.content.starts_with("#!");
        return Command::Shell(if script { mounts.script(&first.name, &first.content) } else { first.content.clone() });
    }
    let documents = run.heredocs.iter().map(|heredoc| format!("{}{}\n", heredoc.content, heredoc.name));
    Command::Shell(format!("{text}\n{}", documents.collect::<String>()))
}

/// Whether a command is nothing but the mark of a heredoc.
fn is_bare(text: &str, heredoc: &Heredoc) -> bool {
    text.trim_start_matches(['<', '-']).trim_matches(['"', '\'']) == heredoc.name
}

/// A command as it is shown.
fn shown(run: &Run, command: &[String]) -> String {
    match (&run.command, run.heredocs.first()) {
        (Command::Exec(_), _) => command.join(" "),
        (Command::Shell(text), Some(first)) if is_bare(text, first) => {
            let mut lines = first.content.trim().lines();
            let summary = lines.next().unwrap_or_default();
            format!("{text} ({summary}{})", if lines.next().is_some() { "..." } else { "" })
        }
        (Command::Shell(text), _) => text.clone(),
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

    fn run(text: &str) -> Run {
        let file = dockerfile::parse(format!("FROM a\n{text}\n").as_bytes()).unwrap();
        let Instruction::Run(run) = &file.instructions[1].instruction else { panic!("not RUN") };
        run.clone()
    }

    #[test]
    fn heredocs_are_the_shells() {
        let told = |text: &str| script(&run(text), &mut Mounts::default());
        let shell = |text: &str| Command::Shell(text.to_owned());
        assert_eq!(told("RUN <<EOF\necho $A\necho b\nEOF"), shell("echo $A\necho b\n"));
        assert_eq!(told("RUN <<-'EOF'\n\techo b\nEOF"), shell("echo b\n"));
        assert_eq!(told("RUN cat <<A > /x\nhello\nA"), shell("cat <<A > /x\nhello\nA\n"));
        assert_eq!(told("RUN cat <<A <<B\n1\nA\n2\nB"), shell("cat <<A <<B\n1\nA\n2\nB\n"));
        assert_eq!(told("RUN <<EOF\n#!/bin/python\nEOF"), shell("/dev/pipes/EOF"));
        assert_eq!(shown(&run("RUN <<EOF\necho a\necho b\nEOF"), &[]), "<<EOF (echo a...)");
    }

    #[test]
    fn history_has_its_arguments() {
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()];
        assert_eq!(history(&[], &command), "RUN /bin/sh -c make");
        assert_eq!(history(&[("A".to_owned(), "1".to_owned())], &command), "RUN |1 A=1 /bin/sh -c make");
    }
}
