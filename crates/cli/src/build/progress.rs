//! What a build does, line by line, as docker prints it without a terminal.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use api::creel::build_event::Event;

use crate::error::{self, Error};

/// Lines so far.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// What a step has said without ending the line.
    open: HashMap<u32, Vec<u8>>,
}

impl Plain {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Prints an event to standard error.
    pub(super) fn show(&mut self, event: &Event) -> Result<(), Error> {
        let text = self.lines(event);
        io::stderr().lock().write_all(&text).map_err(error::io("write to standard error"))
    }

    fn lines(&mut self, event: &Event) -> Vec<u8> {
        match event {
            Event::Begun(begun) => format!("#{} {}\n", begun.step, begun.title.replace('\n', " ")).into_bytes(),
            Event::Output(said) => {
                let open = self.open.entry(said.step).or_default();
                open.extend_from_slice(&said.data);
                let whole = open.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines: Vec<u8> = open.drain(..whole).collect();
                numbered(said.step, &lines)
            }
            Event::Done(done) => {
                let mut text = numbered(done.step, &self.open.remove(&done.step).unwrap_or_default());
                let end = match (done.cached, done.canceled, done.error.as_str()) {
                    (true, ..) => format!("#{} CACHED\n\n", done.step),
                    (_, true, _) => format!("#{} CANCELED\n\n", done.step),
                    (.., error) if !error.is_empty() => format!("#{} ERROR: {error}\n\n", done.step),
                    _ => format!("#{} DONE {:.1}s\n\n", done.step, Duration::from_nanos(done.took).as_secs_f64()),
                };
                text.extend(end.into_bytes());
                text
            }
            Event::Built(_) | Event::Failed(_) | Event::Agent(_) => Vec::new(),
        }
    }
}

fn numbered(step: u32, lines: &[u8]) -> Vec<u8> {
    let line = |line: &[u8]| [format!("#{step} ").as_bytes(), line, b"\n"].concat();
    let whole = lines.strip_suffix(b"\n").unwrap_or(lines);
    if lines.is_empty() { Vec::new() } else { whole.split(|byte| *byte == b'\n').flat_map(line).collect() }
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildDone, BuildOutput, BuildStep};

    use super::*;

    #[test]
    fn lines_are_whole_and_numbered() {
        let mut plain = Plain::new();
        let mut text = Vec::new();
        for event in [
            Event::Begun(BuildStep { step: 3, title: "[2/2] RUN make".into() }),
            Event::Output(BuildOutput { step: 3, data: b"one\ntw".to_vec() }),
            Event::Output(BuildOutput { step: 3, data: b"o\nthr".to_vec() }),
            Event::Done(BuildDone { step: 3, took: 1_500_000_000, ..Default::default() }),
            Event::Done(BuildDone { step: 4, cached: true, ..Default::default() }),
        ] {
            text.extend(plain.lines(&event));
        }
        let wanted = "#3 [2/2] RUN make\n#3 one\n#3 two\n#3 thr\n#3 DONE 1.5s\n\n#4 CACHED\n\n";
        assert_eq!(String::from_utf8(text).unwrap(), wanted);
    }
}
