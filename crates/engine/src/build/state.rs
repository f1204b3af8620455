//! What a stage is so far: layers, a config and its history.

use std::{collections::BTreeMap, sync::Arc};

use dockerfile::Instruction;
use model::{DiffId, StepId};
use registry::Platform;
use serde_json::{Map, Value, json};
use store::LayerPins;

use super::cache::Made;
use crate::image::{Basis, CACHE_FIELD, CarriedStep, Changed};

/// Where programs are looked for if the base image does not say, as docker has it: `ENV PATH=/venv/bin:$PATH` relies on it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// When something was made that has no time of its own.
const EPOCH: &str = "1970-01-01T00:00:00Z";
/// What is about another container in a config, or says it all once more.
const STALE: [&str; 6] = ["container", "container_config", "docker_version", "id", "parent", "parent_id"];

/// A stage between two instructions.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The config's fields beside `config`.
    document: Map<String, Value>,
    pub(super) changed: Changed,
    pub(super) layers: Vec<DiffId>,
    /// Bytes of the layers.
    size: u64,
    /// When the newest thing was made that has gone into it: the same from the same is the same, whenever it is built.
    created: String,
    /// ARGs that have a value, in the order in which they were declared.
    args: Vec<(String, String)>,
    pins: Vec<Arc<LayerPins>>,
    /// What it is made of, beside what it began with.
    steps: Vec<(StepId, Made)>,
    /// Nothing is taken from earlier builds.
    pub(super) fresh: bool,
}

impl State {
    fn begun(document: Map<String, Value>, mut changed: Changed) -> Self {
        if !changed.variables().iter().any(|(name, _)| name == "PATH") {
            changed.list("Env").push(json!(format!("PATH={PATH}")));
        }
        let created = EPOCH.to_owned();
        let (layers, args, pins, steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { document, changed, layers, size: 0, created, args, pins, steps, fresh: false }
    }

    /// FROM scratch.
    pub(super) fn scratch(escape: char, platform: &Platform) -> Self {
        let Platform { os, architecture, variant } = platform.clone();
        let mut document = Map::new();
        document.insert("architecture".to_owned(), Value::String(architecture));
        document.insert("os".to_owned(), Value::String(os));
        if !variant.is_empty() {
            document.insert("variant".to_owned(), Value::String(variant));
        }
        let mut changed = Changed::new(Map::new()).begin(escape);
        changed.config.insert("WorkingDir".to_owned(), json!("/"));
        Self::begun(document, changed)
    }

    /// FROM an image.
    pub(super) fn of_image(basis: Basis, escape: char) -> Self {
        let Basis { mut document, layers, size, pins, .. } = basis;
        let config = match document.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        for key in STALE.into_iter().chain([CACHE_FIELD]) {
            document.remove(key);
        }
        let created = document.get("created").and_then(Value::as_str).unwrap_or(EPOCH).to_owned();
        let changed = Changed::new(config).begin(escape);
        Self { layers, size, created, pins: vec![Arc::new(pins)], ..Self::begun(document, changed) }
    }

    /// FROM a stage.
    pub(super) fn of_stage(&self, escape: char) -> Self {
        Self { changed: self.changed.begin(escape), args: Vec::new(), ..self.clone() }
    }

    /// It and all that comes after it are said to be of this time.
    pub(super) fn dated(self, epoch: Option<i64>) -> Self {
        let created = epoch.map_or_else(|| self.created.clone(), rfc3339);
        Self { created, ..self }
    }

    /// When the newest thing was made that has gone into it, in seconds since 1970.
    pub(super) fn newest(&self) -> i64 {
        model::time::from_rfc3339(&self.created).map_or(0, |at| at.div_euclid(1_000_000_000))
    }

    /// Triggers that the base image has left, which it then has no longer.
    pub(super) fn triggers(&mut self) -> Vec<String> {
        let found = self.changed.config.remove("OnBuild");
        let list = found.as_ref().and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// ARG has given a value.
    pub(super) fn declare(&mut self, name: &str, value: String) {
        self.changed.arguments.insert(name.to_owned(), value.clone());
        self.args.retain(|(known, _)| known != name);
        self.args.push((name.to_owned(), value));
    }

    /// ARGs that a program sees: those that ENV does not hide.
    pub(super) fn args(&self) -> Vec<(String, String)> {
        let set: BTreeMap<String, String> = self.changed.variables().into_iter().collect();
        self.args.iter().filter(|(name, _)| !set.contains_key(name)).cloned().collect()
    }

    /// Everything that a program has in its environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut all = self.changed.variables();
        all.extend(self.args());
        all
    }

    /// Where relative paths begin.
    pub(super) fn working_dir(&self) -> &str {
        match self.changed.of("WorkingDir") {
            "" => "/",
            dir => dir,
        }
    }

    /// An instruction has changed nothing but the config.
    pub(super) fn said(&mut self, text: &str) {
        self.remember(text, true);
    }

    /// A step has been done.
    pub(super) fn done(&mut self, text: &str, made: &Made, pins: Arc<LayerPins>) {
        if made.created > self.created {
            self.created.clone_from(&made.created);
        }
        self.layers.extend(made.layer);
        self.size += made.size;
        self.pins.push(pins);
        self.remember(text, made.layer.is_none());
    }

    /// A step has been done whose result others may take.
    pub(super) fn note(&mut self, id: StepId, made: &Made) {
        self.steps.push((id, made.clone()));
    }

    /// The steps for others.
    pub(super) fn carried(&self) -> Vec<CarriedStep> {
        let carried = |(id, made): &(StepId, Made)| CarriedStep {
            id: *id,
            created: made.created.clone(),
            layer: made.layer,
            what: made.what().to_owned(),
        };
        self.steps.iter().map(carried).collect()
    }

    fn remember(&mut self, text: &str, empty: bool) {
        let mut entry = json!({"created": self.created, "created_by": text});
        if empty {
            entry["empty_layer"] = Value::Bool(true);
        }
        match self.document.entry("history").or_insert_with(|| json!([])) {
            Value::Array(history) => history.push(entry),
            other => *other = json!([entry]),
        }
    }

    /// MAINTAINER.
    pub(super) fn author(&mut self, name: &str) {
        self.document.insert("author".to_owned(), Value::String(name.to_owned()));
    }

    /// The config of the image that it is, and the bytes of its layers.
    pub(super) fn finish(&self, labels: &BTreeMap<String, String>) -> (Map<String, Value>, u64) {
        let mut document = self.document.clone();
        let mut config = self.changed.config.clone();
        if !labels.is_empty() {
            let entry = config.entry("Labels").or_insert_with(|| json!({}));
            if !entry.is_object() {
                *entry = json!({});
            }
            if let Some(known) = entry.as_object_mut() {
                known.extend(labels.iter().map(|(key, value)| (key.clone(), json!(value))));
            }
        }
        document.insert("created".to_owned(), Value::String(self.created.clone()));
        document.insert("config".to_owned(), Value::Object(config));
        (document, self.size)
    }
}

/// Seconds since 1970, as images say it.
pub(super) fn rfc3339(seconds: i64) -> String {
    model::time::rfc3339(seconds.saturating_mul(1_000_000_000)).to_string()
}

/// Whether an instruction changes the config and nothing else.
pub(super) fn is_config(instruction: &Instruction) -> bool {
    use Instruction as I;
    matches!(
        instruction,
        I::Env(_)
            | I::Label(_)
            | I::Cmd(_)
            | I::Entrypoint(_)
            | I::User(_)
            | I::Expose(_)
            | I::Volume(_)
            | I::StopSignal(_)
            | I::Shell(_)
            | I::OnBuild(_)
            | I::Healthcheck(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_hide_arguments() {
        let mut state = State::scratch('\\', &Platform::host());
        state.declare("A", "arg".into());
        state.declare("B", "arg".into());
        state.changed.apply(Instruction::Env(vec![("A".into(), "env-$B".into())])).unwrap();
        let seen: BTreeMap<_, _> = state.environment().into_iter().collect();
        assert_eq!((seen["A"].as_str(), seen["B"].as_str()), ("env-arg", "arg"));
        assert_eq!(state.args(), [("B".to_owned(), "arg".to_owned())]);
        assert!(state.of_stage('\\').args().is_empty(), "arguments end with their stage");
    }

    #[test]
    fn history_says_what_has_a_layer() {
        let mut state = State::scratch('\\', &Platform::host());
        state.said("ENV A=1");
        let (document, _) = state.finish(&BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        assert_eq!(document["history"], json!([{"created": EPOCH, "created_by": "ENV A=1", "empty_layer": true}]));
        assert_eq!((&document["config"]["Labels"], &document["created"]), (&json!({"k": "v"}), &json!(EPOCH)));
    }

    #[test]
    fn an_image_without_a_path_has_dockers() {
        let path = |env: Value| {
            let config = Map::from_iter([("Env".to_owned(), env)]);
            let mut state = State::begun(Map::new(), Changed::new(config));
            state.changed.apply(Instruction::Env(vec![("PATH".into(), "/venv:$PATH".into())])).unwrap();
            state.changed.config["Env"].clone()
        };
        assert_eq!(path(json!(["A=1"])), json!(["A=1", format!("PATH=/venv:{PATH}")]));
        assert_eq!(path(json!(["PATH=/bin", "A=1"])), json!(["PATH=/venv:/bin", "A=1"]));
    }

    #[test]
    fn triggers_are_taken_once() {
        let mut state = State::scratch('\\', &Platform::host());
        state.changed.apply(Instruction::OnBuild("RUN true".into())).unwrap();
        assert_eq!(state.triggers(), ["RUN true"]);
        assert!(state.triggers().is_empty());
    }
}
