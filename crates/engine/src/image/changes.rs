//! A config that is changed as a Dockerfile's instructions say (`commit --change`, `import --change`): docker's rules.

use std::collections::BTreeMap;

use dockerfile::{Command, Expander, Healthcheck, Instruction, Pair, Problem};
use serde_json::{Map, Value, json};

/// Instructions of one request: more is refused.
const MOST: usize = 1000;
/// What the shell form of CMD and ENTRYPOINT is run by.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Why a config cannot be changed so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchangeable {
    #[error("change {0:?}")]
    Instruction(String, #[source] Problem),
    #[error("change {text:?}: {why}")]
    Value { text: String, why: String },
    #[error("more than {MOST} changes")]
    TooMany,
}

/// The `config` of an image (OCI image spec, config.md) on its way to another one.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) config: Map<String, Value>,
    /// CMD was among the changes, so that an ENTRYPOINT does not take it away.
    command_set: bool,
    /// Variables beside those of ENV, which win over them.
    pub(crate) arguments: BTreeMap<String, String>,
    /// The Dockerfile's escape character.
    pub(crate) escape: char,
}

/// Carries changes out, one after the other.
pub(super) fn change(config: Map<String, Value>, changes: &[String]) -> Result<Map<String, Value>, Unchangeable> {
    if changes.len() > MOST {
        return Err(Unchangeable::TooMany);
    }
    let mut changed = Changed::new(config);
    for text in changes {
        let shown = || text.chars().take(200).collect::<String>();
        let instruction = dockerfile::parse_change(text).map_err(|e| Unchangeable::Instruction(shown(), e))?;
        changed.apply(instruction).map_err(|why| match why {
            Wrong::Problem(e) => Unchangeable::Instruction(shown(), e),
            Wrong::Value(why) => Unchangeable::Value { text: shown(), why },
        })?;
    }
    Ok(changed.config)
}

/// Why an instruction does not change a config.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error(transparent)]
    Problem(Problem),
    #[error("{0}")]
    Value(String),
}

impl From<Problem> for Wrong {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Changed {
    pub(crate) fn new(config: Map<String, Value>) -> Self {
        Self { config, command_set: false, arguments: BTreeMap::new(), escape: '\\' }
    }

    /// The same for a stage that begins here.
    pub(crate) fn begin(&self, escape: char) -> Self {
        Self { config: self.config.clone(), command_set: false, arguments: BTreeMap::new(), escape }
    }

    pub(crate) fn apply(&mut self, instruction: Instruction) -> Result<(), Wrong> {
        match instruction {
            Instruction::Cmd(command) => {
                self.set("Cmd", json!(self.command_line(&command)));
                self.command_set = true;
            }
            Instruction::Entrypoint(command) => {
                self.set("Entrypoint", json!(self.command_line(&command)));
                // What was the old entrypoint's argument means nothing to the new one.
                if !self.command_set {
                    self.config.remove("Cmd");
                }
            }
            Instruction::Env(pairs) => self.env(&pairs)?,
            Instruction::Label(pairs) => {
                for (key, value) in self.expanded(&pairs)? {
                    self.object("Labels").insert(key, Value::String(value));
                }
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    let port = self.word(&port)?;
                    let exposed = exposed(&port).ok_or_else(|| Wrong::Value(format!("{port:?} is not PORT[-PORT][/PROTOCOL]")))?;
                    self.object("ExposedPorts").extend(exposed.map(|port| (port, json!({}))));
                }
            }
            Instruction::Volume(paths) => {
                for path in paths {
                    let path = self.word(&path)?;
                    if path.trim().is_empty() {
                        return Err(Wrong::Value("a volume without a path".to_owned()));
                    }
                    self.object("Volumes").insert(path, json!({}));
                }
            }
            Instruction::User(user) => self.text("User", &user)?,
            Instruction::StopSignal(signal) => self.text("StopSignal", &signal)?,
            Instruction::Workdir(path) => self.working_dir(&path)?,
            Instruction::Shell(words) => self.set("Shell", json!(words)),
            Instruction::OnBuild(trigger) => self.list("OnBuild").push(Value::String(trigger)),
            Instruction::Healthcheck(check) => self.set("Healthcheck", healthcheck(&check)),
            other => return Err(Wrong::Value(format!("{} changes more than the config", other.keyword()))),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value) {
        self.config.insert(key.to_owned(), value);
    }

    /// A value that is a text; empty if there is none.
    pub(crate) fn of(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn text(&mut self, key: &str, text: &str) -> Result<(), Wrong> {
        let text = self.word(text)?;
        self.set(key, Value::String(text));
        Ok(())
    }

    fn object(&mut self, key: &str) -> &mut Map<String, Value> {
        let entry = self.config.entry(key).or_insert_with(|| json!({}));
        if !entry.is_object() {
            *entry = json!({});
        }
        entry.as_object_mut().expect("made an object above")
    }

    pub(crate) fn list(&mut self, key: &str) -> &mut Vec<Value> {
        let entry = self.config.entry(key).or_insert_with(|| json!([]));
        if !entry.is_array() {
            *entry = json!([]);
        }
        entry.as_array_mut().expect("made an array above")
    }

    /// Its variables, as ENV has set them.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let list = self.config.get("Env").and_then(Value::as_array).into_iter().flatten();
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        list.filter_map(Value::as_str).filter_map(pair).collect()
    }

    /// A word with its variables' values.
    pub(crate) fn word(&self, text: &str) -> Result<String, Problem> {
        let known = self.variables();
        Expander::new(&|name: &str| self.value(&known, name), self.escape).word(text)
    }

    /// A heredoc with its variables' values.
    pub(crate) fn document(&self, text: &str) -> Result<String, Problem> {
        let known = self.variables();
        Expander::new(&|name: &str| self.value(&known, name), self.escape).document(text)
    }

    fn value(&self, known: &[(String, String)], name: &str) -> Option<String> {
        let set = known.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        set.or_else(|| self.arguments.get(name).cloned())
    }

    /// All of one instruction see what was before it.
    fn expanded(&self, pairs: &[Pair]) -> Result<Vec<Pair>, Problem> {
        pairs.iter().map(|(key, value)| Ok((self.word(key)?, self.word(value)?))).collect()
    }

    fn env(&mut self, pairs: &[Pair]) -> Result<(), Wrong> {
        for (name, value) in self.expanded(pairs)? {
            let line = Value::String(format!("{name}={value}"));
            let list = self.list("Env");
            let same = |known: &Value| known.as_str().and_then(|text| text.split('=').next()) == Some(name.as_str());
            match list.iter_mut().find(|known| same(known)) {
                Some(known) => *known = line,
                None => list.push(line),
            }
        }
        Ok(())
    }

    /// Relative to the one before.
    fn working_dir(&mut self, path: &str) -> Result<(), Wrong> {
        let path = self.word(path)?;
        let before = self.config.get("WorkingDir").and_then(Value::as_str).filter(|dir| !dir.is_empty()).unwrap_or("/");
        let joined = if path.starts_with('/') { path } else { format!("{before}/{path}") };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let clean = format!("/{}", parts.join("/"));
        self.set("WorkingDir", Value::String(clean));
        Ok(())
    }

    /// The argument vector of a command, by the shell that is in force.
    pub(crate) fn command_line(&self, command: &Command) -> Vec<String> {
        let own = self.config.get("Shell").and_then(Value::as_array);
        let own: Vec<String> = own.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let shell = if own.is_empty() { SHELL.map(str::to_owned).to_vec() } else { own };
        if command.is_empty() { Vec::new() } else { command.arguments(&shell) }
    }
}

/// `PORT[-PORT][/PROTOCOL]` as docker keeps it: each port with its protocol.
fn exposed(text: &str) -> Option<impl Iterator<Item = String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    let legal = matches!(protocol.as_str(), "tcp" | "udp" | "sctp") && first <= last;
    legal.then(|| (first..=last).map(move |port| format!("{port}/{protocol}")))
}

/// As docker writes it: durations in nanoseconds.
fn healthcheck(check: &Healthcheck) -> Value {
    let Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } = check else {
        return json!({"Test": ["NONE"]});
    };
    let test = match command {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    let mut value = Map::from_iter([("Test".to_owned(), json!(test))]);
    let times = [("Interval", interval), ("Timeout", timeout), ("StartPeriod", start_period), ("StartInterval", start_interval)];
    for (key, time) in times {
        if let Some(time) = time {
            value.insert(key.to_owned(), json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    if let Some(retries) = retries {
        value.insert("Retries".to_owned(), json!(retries));
    }
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: Value, changes: &[&str]) -> Result<Value, String> {
        let Value::Object(before) = before else { panic!("not an object") };
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        change(before, &changes).map(Value::Object).map_err(|e| crate::chain(&e))
    }

    #[test]
    fn every_instruction() {
        let base = json!({"Env": ["A=1", "PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/srv"});
        let after = changed(
            base,
            &[
                "ENV A=2 B=\"$A x\"",
                "ENTRYPOINT [\"/run\"]",
                "EXPOSE 80 90-91/udp",
                "LABEL k=v",
                "USER me:you",
                "VOLUME /data",
                "WORKDIR sub/../x",
                "STOPSIGNAL SIGINT",
                "ONBUILD RUN true",
                "HEALTHCHECK --interval=5s CMD curl localhost",
            ],
        );
        let wanted = json!({
            "Env": ["A=2", "PATH=/bin", "B=1 x"], "Entrypoint": ["/run"], "WorkingDir": "/srv/x", "User": "me:you",
            "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}}, "Labels": {"k": "v"}, "Volumes": {"/data": {}},
            "StopSignal": "SIGINT", "OnBuild": ["RUN true"],
            "Healthcheck": {"Test": ["CMD-SHELL", "curl localhost"], "Interval": 5_000_000_000_u64},
        });
        assert_eq!(after, Ok(wanted));
    }

    #[test]
    fn an_entrypoint_takes_the_old_command_away_and_not_the_new_one() {
        let after = changed(json!({"Cmd": ["a"]}), &["ENTRYPOINT x y"]).unwrap();
        assert_eq!(after, json!({"Entrypoint": ["/bin/sh", "-c", "x y"]}));
        let after = changed(json!({"Cmd": ["a"], "Shell": ["/sh"]}), &["CMD b", "ENTRYPOINT [\"c\"]"]).unwrap();
        assert_eq!(after, json!({"Cmd": ["/sh", "b"], "Entrypoint": ["c"], "Shell": ["/sh"]}));
    }

    #[test]
    fn what_is_wrong_names_itself() {
        for (text, part) in [
            ("RUN true", "not a valid change command"),
            ("COPY a b", "not a valid change command"),
            ("NONSENSE x", "NONSENSE"),
            ("EXPOSE 0", "\"0\" is not PORT"),
            ("EXPOSE 9-8", "is not PORT"),
            ("EXPOSE 80/quic", "is not PORT"),
            ("ENV", "ENV"),
            ("USER ${x?no}", "change \"USER ${x?no}\""),
        ] {
            let error = changed(json!({}), &[text]).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
