//! How far a pull or push is: bars on a terminal, docker's lines elsewhere, and with `--format json` the objects of docker's API,
//! one in a line: `status`, `id`, `progressDetail` with `current` and `total`.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
};

use api::creel::{LayerProgress, layer_progress::Phase};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use serde_json::json;

use crate::{error::Error, format::Format, output};

/// Shows a pull.
pub(crate) enum Progress {
    /// One bar per layer.
    Bars { all: MultiProgress, layers: HashMap<String, ProgressBar> },
    /// Lines, and what was last said of each layer.
    Lines { said: HashMap<String, Phase>, to: Output },
    /// Objects.
    Json,
    /// Nothing.
    Quiet,
}

/// One object of `--format json`.
pub(crate) fn object(id: &str, status: &str, bytes: Option<(u64, u64)>) -> Result<(), Error> {
    let mut object = json!({"status": status});
    if !id.is_empty() {
        object["id"] = json!(id);
    }
    if let Some((current, total)) = bytes {
        object["progressDetail"] = json!({"current": current, "total": total});
    }
    output::print(&format!("{object}\n"))
}

/// Where lines go.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// They are what the command is for.
    Standard,
    /// The command has another output.
    Error,
}

impl Progress {
    /// Of something that a command needs: on standard error.
    pub(crate) fn new(quiet: bool) -> Self {
        Self::on(quiet, Output::Error)
    }

    /// Of `creel pull` itself: lines go to standard output, as docker's do.
    pub(crate) fn of_pull(quiet: bool, format: &Format) -> Self {
        if matches!(format, Format::Json) && !quiet { Self::Json } else { Self::on(quiet, Output::Standard) }
    }

    fn on(quiet: bool, to: Output) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars { all: MultiProgress::new(), layers: HashMap::new() },
            (false, false) => Self::Lines { said: HashMap::new(), to },
        }
    }

    /// A layer got further.
    pub(crate) fn update(&mut self, layer: &LayerProgress) {
        let short = output::short(&layer.digest);
        match self {
            Self::Quiet => {}
            Self::Json => drop(object(&short, text(layer.phase()), Some((layer.current, layer.total)))),
            Self::Lines { said, to } => match (line(said, &short, layer), to) {
                (None, _) => {}
                // Whoever reads it no more wants no more of it: the pull's own end is told anyway.
                (Some(line), Output::Standard) => drop(output::print(&(line + "\n"))),
                (Some(line), Output::Error) => output::note(&line),
            },
            Self::Bars { all, layers } => {
                let bar = layers.entry(layer.digest.clone()).or_insert_with(|| {
                    let style = ProgressStyle::with_template("{prefix}: {msg:<13} {wide_bar} {bytes:>10}/{total_bytes:<10}");
                    let bar = all.add(ProgressBar::new(layer.total));
                    bar.set_prefix(short);
                    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                });
                bar.set_length(layer.total);
                bar.set_position(layer.current);
                bar.set_message(text(layer.phase()));
                if matches!(layer.phase(), Phase::Done | Phase::Exists) {
                    bar.finish();
                }
            }
        }
    }
}

/// What there is to say, once per layer and phase. As docker's lines without a terminal, which tell of no progress in between.
fn line(said: &mut HashMap<String, Phase>, short: &str, layer: &LayerProgress) -> Option<String> {
    let phase = layer.phase();
    if said.insert(layer.digest.clone(), phase) == Some(phase) || phase == Phase::Downloading {
        return None;
    }
    Some(format!("{short}: {}", text(phase)))
}

fn text(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified | Phase::Waiting => "Pulling fs layer",
        Phase::Downloading => "Downloading",
        Phase::Unpacking => "Download complete",
        Phase::Done => "Pull complete",
        Phase::Exists => "Already exists",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_phase() {
        let mut said = HashMap::new();
        let mut step = |phase: Phase, current| {
            let layer = LayerProgress { digest: "sha256:aabb".into(), phase: phase.into(), current, total: 2000 };
            line(&mut said, "aabb", &layer)
        };
        assert_eq!(step(Phase::Waiting, 0).as_deref(), Some("aabb: Pulling fs layer"));
        assert_eq!(step(Phase::Waiting, 0), None);
        assert_eq!(step(Phase::Downloading, 1000), None);
        assert_eq!(step(Phase::Unpacking, 2000).as_deref(), Some("aabb: Download complete"));
        assert_eq!(step(Phase::Done, 2000).as_deref(), Some("aabb: Pull complete"));
    }
}
