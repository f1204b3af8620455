//! Line by line, as docker prints it without a terminal.

use std::time::Duration;

use api::creel::BuildDone;

use super::steps::{Line, News, Step, harmless};

/// Lines, each with the number of its step.
#[derive(Debug)]
pub(super) struct Plain {
    /// They go to a terminal.
    terminal: bool,
    /// The step that was shown last, if it goes on.
    open: Option<(u32, String)>,
}

impl Plain {
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, open: None }
    }

    /// What is to be printed.
    pub(super) fn lines(&mut self, news: News<'_>) -> Vec<u8> {
        match news {
            News::Begun(step) => self.turn_to(step),
            News::Said(_, lines) if lines.is_empty() => Vec::new(),
            News::Said(step, lines) => {
                let mut text = self.turn_to(step);
                lines.iter().for_each(|line| text.extend(self.line(step, line)));
                text
            }
            News::Ended(step, done) => {
                let mut text = self.turn_to(&step);
                self.open = None;
                text.extend(format!("#{} {}\n\n", step.number, end(done)).into_bytes());
                text
            }
        }
    }

    /// The headline of a step, unless it was the last that was shown.
    fn turn_to(&mut self, step: &Step) -> Vec<u8> {
        let mut text = String::new();
        match &self.open {
            Some((number, _)) if *number == step.number => return Vec::new(),
            Some((number, _)) => text.push_str(&format!("#{number} ...\n\n")),
            None => {}
        }
        let title = if self.terminal { harmless(step.title.as_bytes()) } else { step.title.clone() };
        text.push_str(&format!("#{} {title}\n", step.number));
        self.open = Some((step.number, title));
        text.into_bytes()
    }

    fn line(&self, step: &Step, line: &Line) -> Vec<u8> {
        let start = format!("#{} {:.3} ", step.number, line.at.as_secs_f64());
        let shown = if self.terminal { harmless(&line.text).into_bytes() } else { line.text.clone() };
        [start.as_bytes(), &shown, b"\n"].concat()
    }
}

fn end(done: &BuildDone) -> String {
    match (done.cached, done.canceled, done.error.as_str()) {
        (true, ..) => "CACHED".to_owned(),
        (_, true, _) => "CANCELED".to_owned(),
        (.., "") => format!("DONE {:.1}s", Duration::from_nanos(done.took).as_secs_f64()),
        (.., error) => format!("ERROR: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildOutput, BuildStep, build_event::Event};

    use super::{super::steps::Steps, *};

    #[test]
    fn steps_that_run_side_by_side() {
        let (mut plain, mut steps, mut text) = (Plain::new(false), Steps::default(), Vec::new());
        let begun = |step, title: &str| Event::Begun(BuildStep { step, title: title.into() });
        let said = |step, data: &[u8]| Event::Output(BuildOutput { step, data: data.to_vec(), at: 0 });
        for event in [
            begun(3, "[2/2] RUN make"),
            said(3, b"one\ntw"),
            begun(4, "[a 1/1] RUN x"),
            said(3, b"o\n"),
            Event::Done(BuildDone { step: 3, took: 1_500_000_000, ..Default::default() }),
            Event::Done(BuildDone { step: 4, cached: true, ..Default::default() }),
            begun(5, "RUN false"),
            said(5, b"no"),
            Event::Done(BuildDone { step: 5, error: "it failed".into(), ..Default::default() }),
        ] {
            steps.take(&event).into_iter().for_each(|news| text.extend(plain.lines(news)));
        }
        let wanted = "#3 [2/2] RUN make\n#3 0.0 one\n#3 ...\n\n#4 [a 1/1] RUN x\n#4 ...\n\n#3 [2/2] RUN make\n#3 0.0 two\n\
                      #3 DONE 1.5s\n\n#4 [a 1/1] RUN x\n#4 CACHED\n\n#5 RUN false\n#5 0.0 no\n#5 ERROR: it failed\n\n";
        // Times are what they are.
        let shown = String::from_utf8(text).unwrap();
        let timeless =
            shown.lines().map(|line| match line.split_once(' ').and_then(|(step, rest)| Some((step, rest.split_once(' ')?))) {
                Some((step, (time, rest))) if time.parse::<f64>().is_ok() => format!("{step} 0.0 {rest}\n"),
                _ => format!("{line}\n"),
            });
        assert_eq!(timeless.collect::<String>(), wanted);
    }
}
