//! What people see: commands and their output, with whatever differs from run to run replaced by words for it.
//!
//! The expected texts are in `snapshots/`. `CREEL_WRITE_SNAPSHOTS=DIR` writes the new ones into DIR in place of comparing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use regex_lite::Regex;

use crate::daemon::{Daemon, bin};

/// What is replaced, in this order.
const RULES: [(&str, &str); 16] = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d| ?Z)?( UTC)?", "<time>"),
    (r"\b(Less than a second|About a minute|About an hour|\d+ (second|minute|hour|day|week|month|year)s?)\b", "<age>"),
    (r"\b\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\b", "<size>"),
    (r"\b\d+(\.\d+)?%", "<percent>"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
    (r"\b10\.\d+\.\d+\.\d+(/\d+)?", "<ip>"),
    (r"\bfd[0-9a-f]{2}:[0-9a-f:]+(/\d+)?", "<ip6>"),
    (r#""Cgroup": ".*""#, r#""Cgroup": "<cgroup>""#),
    (r#""HostPort": "\d+""#, r#""HostPort": "<port>""#),
    (r"\bcrl-[0-9a-f]{8}\b", "<interface>"),
    (r"\bsize: \d+", "size: <bytes>"),
    (r"\breclaimed=\d+", "reclaimed=<bytes>"),
    (r#""(Size|SizeRw|SizeRootFs|SharedSize|UniqueSize|Pid)": \d+"#, r#""$1": <number>"#),
    (r"(?m)^(Kernel|Features|Cgroups|Layers):( +).*$", "$1:$2<of this machine>"),
    (r"(?m)^Warning: .*\n", ""),
    // Columns are as wide as what is in them.
    (r"(?m)(\S) {2,}", "$1   "),
];

/// A person with a home of their own, who notes everything.
pub struct Transcript<'d> {
    daemon: &'d Daemon,
    home: tempfile::TempDir,
    words: Vec<(String, String)>,
    text: String,
}

impl<'d> Transcript<'d> {
    pub fn new(daemon: &'d Daemon) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut words = vec![
            (home.path().display().to_string(), "<home>".to_owned()),
            (daemon.dir.path().display().to_string(), "<daemon>".to_owned()),
            (daemon.cgroup.clone(), "<cgroup>".to_owned()),
            (daemon.bridge.clone(), "<bridge>".to_owned()),
        ];
        words.retain(|(word, _)| !word.is_empty());
        Self { daemon, home, words, text: String::new() }
    }

    /// A file of this person.
    pub fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// From now on shown as another word.
    pub fn calls(&mut self, word: &str, shown: &str) {
        self.words.insert(0, (word.to_owned(), shown.to_owned()));
    }

    fn output(&self, args: &[&str], input: Option<&Path>) -> Output {
        let mut command = Command::new(bin("creel"));
        command.args(args).env("CREEL_SOCKET", self.daemon.socket()).env("DOCKER_CONFIG", self.home.path());
        for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_DEFAULT_PLATFORM", "CREEL_CREDS", "COLUMNS"] {
            command.env_remove(name);
        }
        command.env("HOME", self.home.path()).env("TZ", "UTC");
        command.stdin(input.map_or_else(Stdio::null, |path| std::fs::File::open(path).unwrap().into()));
        command.output().expect("creel runs")
    }

    /// Runs a command and notes it: its output, its complaints after `!`, and how it ended unless that was well.
    pub fn says(&mut self, args: &[&str]) -> String {
        self.note(args, None, &[])
    }

    /// With a file at its standard input.
    pub fn says_with(&mut self, args: &[&str], input: &Path) -> String {
        self.note(args, Some(input), &[])
    }

    /// With further rules for what is seen only here.
    pub fn says_like(&mut self, args: &[&str], rules: &[(&str, &str)]) -> String {
        self.note(args, None, rules)
    }

    fn note(&mut self, args: &[&str], input: Option<&Path>, rules: &[(&str, &str)]) -> String {
        let output = self.output(args, input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let shown = args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ");
        let mut told = out.clone();
        told.extend(err.lines().map(|line| format!("! {line}\n")));
        let told = rules.iter().fold(told, |told, (rule, to)| Regex::new(rule).unwrap().replace_all(&told, *to).into_owned());
        let code = output.status.code().unwrap_or(-1);
        let end = if code == 0 { String::new() } else { format!("[exit code {code}]\n") };
        self.text.push_str(&format!("$ creel {shown}\n{told}{end}\n"));
        out.trim().to_owned()
    }

    /// A command that is no matter of the transcript; it must succeed.
    pub fn quietly(&self, args: &[&str]) -> String {
        let output = self.output(args, None);
        assert!(output.status.success(), "creel {args:?}: {}\n{}", text(&output.stderr), self.daemon.log());
        text(&output.stdout).trim().to_owned()
    }

    /// What a command writes to its two streams, which is no matter of the transcript.
    pub fn hears(&self, args: &[&str]) -> (String, String) {
        let output = self.output(args, None);
        (text(&output.stdout), text(&output.stderr))
    }

    /// Compares everything with what is expected, or writes it.
    pub fn matches(mut self, name: &str, expected: &str) {
        let text = self.normal();
        self.text.clone_from(&text);
        if let Some(dir) = std::env::var_os("CREEL_WRITE_SNAPSHOTS") {
            std::fs::write(Path::new(&dir).join(format!("{name}.txt")), text).unwrap();
            return;
        }
        if let Some((n, (is, was))) = text.lines().zip(expected.lines()).enumerate().find(|(_, (is, was))| is != was) {
            panic!("{name}.txt, line {}:\nexpected: {was}\nis:       {is}", n + 1);
        }
        assert_eq!(text.lines().count(), expected.lines().count(), "{name}.txt: lines");
    }

    fn normal(&self) -> String {
        let mut text = self.text.clone();
        for (word, shown) in &self.words {
            text = text.replace(word, shown);
        }
        text = ids(&text);
        for (rule, to) in RULES {
            text = Regex::new(rule).unwrap().replace_all(&text, to).into_owned();
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

impl Drop for Transcript<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what was said\n{}", self.text);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
}

/// Ids in the order in which they are first seen; a short one is known by the whole one's beginning.
fn ids(text: &str) -> String {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let rule = Regex::new(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b").unwrap();
    let name = |found: &regex_lite::Captures<'_>| {
        let (id, next) = (&found[1], seen.len() + 1);
        let number = *seen.entry(id[..12].to_owned()).or_insert(next);
        if id.len() == 12 { format!("<id {number}>") } else { format!("<whole id {number}>") }
    };
    rule.replace_all(text, name).into_owned()
}
