//! The instructions. Texts are as they stand: variables are expanded by who knows them.

use std::time::Duration;

use crate::{Command, Flag, Heredoc};

/// `NAME=VALUE`; quotes and variables are still in both.
pub type Pair = (String, String);

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// FROM.
    From {
        /// `--platform`.
        platform: Option<String>,
        /// An image, an earlier stage, or `scratch`.
        image: String,
        /// `AS`, lower-case.
        name: Option<String>,
    },
    /// ARG: names, some with a default.
    Arg(Vec<(String, Option<String>)>),
    /// ENV.
    Env(Vec<Pair>),
    /// LABEL.
    Label(Vec<Pair>),
    /// RUN.
    Run(Run),
    /// CMD.
    Cmd(Command),
    /// ENTRYPOINT.
    Entrypoint(Command),
    /// COPY.
    Copy(Copy),
    /// ADD.
    Add(Copy),
    /// WORKDIR.
    Workdir(String),
    /// USER.
    User(String),
    /// EXPOSE.
    Expose(Vec<String>),
    /// VOLUME.
    Volume(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// SHELL.
    Shell(Vec<String>),
    /// ONBUILD: another instruction's text, which has been checked.
    OnBuild(String),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// MAINTAINER.
    Maintainer(String),
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// `--mount`, `--network`, `--security`, `--device`, in order.
    pub flags: Vec<Flag>,
    /// Documents on its standard input, or the script itself if the command is nothing but one of them.
    pub heredocs: Vec<Heredoc>,
}

/// COPY and ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied; names of `heredocs` are marked `<<NAME`.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
    /// `--from`, `--chown`, `--chmod`, `--link`, `--parents`, `--exclude`, `--checksum`, `--keep-git-dir`, `--unpack`, in order.
    pub flags: Vec<Flag>,
    /// Files that stand in the Dockerfile.
    pub heredocs: Vec<Heredoc>,
}

/// HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: not even what the base image says.
    None,
    /// `CMD`.
    Command {
        /// What says whether the container is well.
        command: Command,
        /// Between two checks.
        interval: Option<Duration>,
        /// For one check.
        timeout: Option<Duration>,
        /// In which failures do not count.
        start_period: Option<Duration>,
        /// Between two checks in that time.
        start_interval: Option<Duration>,
        /// Failures in a row that make it unwell.
        retries: Option<u32>,
    },
}

impl Instruction {
    /// Its keyword.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From { .. } => "FROM",
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Shell(_) => "SHELL",
            Self::OnBuild(_) => "ONBUILD",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}
