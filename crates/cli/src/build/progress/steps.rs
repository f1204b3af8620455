//! The steps that are under way: what they are called, since when, and what they say, line by line.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use api::creel::{BuildDone, build_event::Event};

/// Lines that are shown of a step that fails.
const LAST: usize = 20;
/// Bytes of a line; longer ones are cut in pieces.
const LONGEST: usize = 8 << 10;

/// A step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) title: String,
    since: Instant,
    /// What it has said without ending the line.
    open: Vec<u8>,
    /// The last lines, and when they were said.
    pub(super) last: VecDeque<Line>,
}

/// A line of a step's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Since the step began.
    pub(super) at: Duration,
    pub(super) text: Vec<u8>,
}

/// Something that is to be shown.
#[derive(Debug)]
pub(super) enum News<'s> {
    Begun(&'s Step),
    Said(&'s Step, Vec<Line>),
    Ended(Box<Step>, &'s BuildDone),
}

/// All that are under way.
#[derive(Debug, Default)]
pub(super) struct Steps {
    running: HashMap<u32, Step>,
    /// The one that has failed first.
    pub(super) failed: Option<Step>,
}

impl Steps {
    /// What an event means. Of steps that nobody has begun nothing is known.
    pub(super) fn take<'s>(&'s mut self, event: &'s Event) -> Vec<News<'s>> {
        match event {
            Event::Begun(begun) => {
                let title: String = begun.title.replace('\n', " ");
                let step = Step { number: begun.step, title, since: Instant::now(), open: Vec::new(), last: VecDeque::new() };
                self.running.insert(begun.step, step);
                self.running.get(&begun.step).map(News::Begun).into_iter().collect()
            }
            Event::Output(said) => {
                let Some(step) = self.running.get_mut(&said.step) else { return Vec::new() };
                let at = if said.at > 0 { Duration::from_nanos(said.at) } else { step.since.elapsed() };
                let lines = step.lines(&said.data, at);
                vec![News::Said(step, lines)]
            }
            Event::Done(done) => {
                let Some(mut step) = self.running.remove(&done.step) else { return Vec::new() };
                let rest = std::mem::take(&mut step.open);
                let rest = if rest.is_empty() { Vec::new() } else { vec![step.line(rest, Duration::from_nanos(done.took))] };
                if !done.error.is_empty() && self.failed.is_none() {
                    self.failed = Some(step.clone());
                }
                // Shown as if it were still running, and then as ended.
                match rest.is_empty() {
                    true => vec![News::Ended(Box::new(step), done)],
                    false => {
                        let (number, ended) = (step.number, step.clone());
                        self.running.insert(number, step);
                        let shown = self.running.get(&number).map(|step| News::Said(step, rest));
                        shown.into_iter().chain([News::Ended(Box::new(ended), done)]).collect()
                    }
                }
            }
            _ => Vec::new(),
        }
    }
}

impl Step {
    fn lines(&mut self, data: &[u8], at: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend_from_slice(piece);
            let whole = self.open.last() == Some(&b'\n');
            if whole || self.open.len() >= LONGEST {
                let mut text = std::mem::take(&mut self.open);
                if whole {
                    text.pop();
                }
                lines.push(self.line(text, at));
            }
        }
        lines
    }

    fn line(&mut self, text: Vec<u8>, at: Duration) -> Line {
        let line = Line { at, text };
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        line
    }
}

/// Text that does nothing to a terminal: no escape sequences, of what overwrites itself the last, blanks for other controls.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.peek() == Some(&'[') => {
                chars.next();
                // Parameters up to the letter that says what is to be done.
                while chars.next_if(|c| matches!(c, '\x20'..='\x3f')).is_some() {}
                chars.next_if(|c| matches!(c, '\x40'..='\x7e'));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildOutput, BuildStep};

    use super::*;

    fn said(data: &[u8]) -> Event {
        Event::Output(BuildOutput { step: 1, data: data.to_vec(), at: 0 })
    }

    fn texts(steps: &mut Steps, event: &Event) -> Vec<String> {
        let text = |line: Line| String::from_utf8(line.text).unwrap();
        let one = |news| if let News::Said(_, lines) = news { lines.into_iter().map(text).collect() } else { vec![] };
        steps.take(event).into_iter().flat_map(one).collect()
    }

    #[test]
    fn lines_are_whole_and_bounded() {
        let mut steps = Steps::default();
        assert!(steps.take(&said(b"of nobody\n")).is_empty());
        drop(steps.take(&Event::Begun(BuildStep { step: 1, title: "RUN a\nb".into() })));
        assert_eq!(texts(&mut steps, &said(b"one\ntw")), ["one"]);
        assert_eq!(texts(&mut steps, &said(b"o\n\nthr")), ["two", ""]);
        assert_eq!(texts(&mut steps, &said(&[b'x'; LONGEST]))[0].len(), LONGEST + 3);
        for _ in 0..30 {
            texts(&mut steps, &said(b"more\n"));
        }
        texts(&mut steps, &said(b"rest"));
        let done = Event::Done(BuildDone { step: 1, error: "why".into(), ..Default::default() });
        assert_eq!(texts(&mut steps, &done), ["rest"]);
        let failed = steps.failed.unwrap();
        assert_eq!((failed.title.as_str(), failed.last.len(), &failed.last[LAST - 1].text[..]), ("RUN a b", LAST, &b"rest"[..]));
    }

    #[test]
    fn a_terminal_is_left_alone() {
        for (text, shown) in [
            ("plain \u{e4}\t.", "plain \u{e4} ."),
            ("\x1b[31mred\x1b[0m\x1b[2J", "red"),
            ("\x1b]0;title\x07x", " ]0;title x"),
            ("10%\r20%\r100%\r", "100%"),
            ("a\u{9b}b\x08c", "a b c"),
        ] {
            assert_eq!(harmless(text.as_bytes()), shown, "{text:?}");
        }
    }
}
