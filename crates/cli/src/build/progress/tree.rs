//! On a terminal: what is under way, with its times and its last lines; what is done stands above.

use std::{
    collections::HashMap,
    fmt::Write,
    io,
    time::{Duration, Instant},
};

use api::creel::BuildDone;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;

use super::steps::{News, Step, harmless};

/// Lines of a step's output.
const LINES: usize = 5;
/// Between two pictures.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a time.
const TIME: usize = 8;

/// The picture.
#[derive(Debug)]
pub(super) struct Tree {
    all: MultiProgress,
    head: ProgressBar,
    running: HashMap<u32, Running>,
    since: Instant,
    begun: usize,
    done: usize,
    coloured: bool,
}

#[derive(Debug)]
struct Running {
    bar: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::no_length().with_style(style("[+] Building {time} ({msg})")));
        head.enable_steady_tick(TICK);
        let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { all, head, running: HashMap::new(), since: Instant::now(), begun: 0, done: 0, coloured }
    }

    pub(super) fn show(&mut self, news: News<'_>) -> io::Result<()> {
        match news {
            News::Begun(step) => {
                let bar = self.all.add(ProgressBar::no_length().with_style(style(" => {wide_msg} {time:>7}")));
                bar.set_message(harmless(step.title.as_bytes()));
                bar.enable_steady_tick(TICK);
                self.running.insert(step.number, Running { bar, lines: Vec::new() });
                self.begun += 1;
            }
            News::Said(step, _) => self.said(step),
            News::Ended(step, done) => {
                if let Some(running) = self.running.remove(&step.number) {
                    running.lines.iter().chain([&running.bar]).for_each(|bar| self.remove(bar));
                }
                self.done += 1;
                let text = ended(&step, done, columns());
                self.all.println(if self.coloured { coloured(&text, done) } else { text })?;
            }
        }
        self.head.set_message(format!("{}/{}", self.done, self.begun));
        Ok(())
    }

    fn said(&mut self, step: &Step) {
        let Some(running) = self.running.get_mut(&step.number) else { return };
        let last: Vec<_> = step.last.iter().rev().take(LINES).rev().collect();
        while running.lines.len() < last.len() {
            let after = running.lines.last().unwrap_or(&running.bar);
            let line = ProgressBar::no_length().with_style(style(" => => # {wide_msg:.dim}"));
            running.lines.push(self.all.insert_after(after, line));
        }
        for (bar, line) in running.lines.iter().zip(last) {
            bar.set_message(harmless(&line.text));
        }
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.all.remove(bar);
    }

    /// Leaves the terminal to what comes after.
    pub(super) fn finish(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            running.lines.iter().chain([&running.bar]).for_each(|bar| self.remove(bar));
        }
        self.remove(&self.head);
        let time = self.since.elapsed().as_secs_f64();
        self.all.println(format!("[+] Building {time:.1}s ({}/{}) FINISHED", self.done, self.begun)).ok();
    }
}

fn style(template: &str) -> ProgressStyle {
    let time = |state: &ProgressState, out: &mut dyn Write| {
        write!(out, "{:.1}s", state.elapsed().as_secs_f64()).ok();
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("time", time)
}

fn columns() -> usize {
    // Some say nothing of their size.
    tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80).max(40)
}

/// The line of a step that is over, its time at the right.
fn ended(step: &Step, done: &BuildDone, columns: usize) -> String {
    let how = match (done.cached, done.canceled, done.error.is_empty()) {
        (true, ..) => "CACHED ",
        (_, true, _) => "CANCELED ",
        (.., false) => "ERROR ",
        _ => "",
    };
    let room = columns - TIME;
    let text: String = format!(" => {how}{}", harmless(step.title.as_bytes())).chars().take(room).collect();
    let time = format!("{:.1}s", Duration::from_nanos(done.took).as_secs_f64());
    format!("{text:<room$}{time:>TIME$}")
}

/// docker's colours: what is done is blue, what failed is red.
fn coloured(text: &str, done: &BuildDone) -> String {
    let colour = match (done.canceled, done.error.is_empty()) {
        (true, _) => 33,
        (_, false) => 31,
        _ => 34,
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildStep, build_event::Event};

    use super::{super::steps::Steps, *};

    #[test]
    fn times_stand_at_the_right() {
        let line = |title: &str, done: BuildDone| {
            let mut steps = Steps::default();
            drop(steps.take(&Event::Begun(BuildStep { step: 1, title: title.into() })));
            let done = BuildDone { step: 1, ..done };
            let event = Event::Done(done.clone());
            let news = steps.take(&event).pop();
            let Some(News::Ended(step, _)) = news else { panic!("not over") };
            ended(&step, &done, 30)
        };
        assert_eq!(line("RUN x", BuildDone { took: 1_240_000_000, ..Default::default() }), " => RUN x                 1.2s");
        let long = line("RUN something that is long\x1b[2J", BuildDone { cached: true, ..Default::default() });
        assert_eq!(long, " => CACHED RUN somethi    0.0s");
    }
}
