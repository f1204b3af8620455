//! How far a pull is: bars on a terminal, a line per layer and phase elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
};

use api::creel::{LayerProgress, layer_progress::Phase};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

/// Shows a pull on standard error.
pub(crate) enum Progress {
    /// One bar per layer.
    Bars { all: MultiProgress, layers: HashMap<String, ProgressBar> },
    /// Lines, and what was last said of each layer.
    Lines { said: HashMap<String, Phase> },
    /// Nothing.
    Quiet,
}

impl Progress {
    /// As it suits standard error.
    pub(crate) fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars { all: MultiProgress::new(), layers: HashMap::new() },
            (false, false) => Self::Lines { said: HashMap::new() },
        }
    }

    /// A layer got further.
    pub(crate) fn update(&mut self, layer: &LayerProgress) {
        let short = output::short(&layer.digest);
        match self {
            Self::Quiet => {}
            Self::Lines { said } => {
                if let Some(line) = line(said, &short, layer) {
                    output::note(&line);
                }
            }
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

/// What there is to say, once per layer and phase.
fn line(said: &mut HashMap<String, Phase>, short: &str, layer: &LayerProgress) -> Option<String> {
    let phase = layer.phase();
    if said.insert(layer.digest.clone(), phase) == Some(phase) || phase == Phase::Waiting {
        return None;
    }
    let size = if layer.total > 0 { format!(" ({})", output::bytes(layer.total)) } else { String::new() };
    Some(format!("{short}: {}{size}", text(phase)))
}

fn text(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified | Phase::Waiting => "waiting",
        Phase::Downloading => "downloading",
        Phase::Unpacking => "unpacking",
        Phase::Done => "done",
        Phase::Exists => "already there",
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
        assert_eq!(step(Phase::Waiting, 0), None);
        assert_eq!(step(Phase::Downloading, 1).as_deref(), Some("aabb: downloading (2.00kB)"));
        assert_eq!(step(Phase::Downloading, 1000), None);
        assert_eq!(step(Phase::Done, 2000).as_deref(), Some("aabb: done (2.00kB)"));
    }
}
