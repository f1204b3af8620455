//! The objects of docker's `--progress rawjson`, one in a line.

use std::time::{SystemTime, UNIX_EPOCH};

use api::creel::{BuildDone, BuildWarning};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::time::rfc3339;
use serde_json::{Value, json};

use super::steps::News;

/// What the object of a step has already said.
#[derive(Debug, Default)]
pub(super) struct Raw {
    started: std::collections::HashMap<u32, String>,
}

impl Raw {
    pub(super) fn object(&mut self, news: &News<'_>) -> Option<Value> {
        let now = now();
        match news {
            News::Begun(step) => {
                self.started.insert(step.number, now.clone());
                Some(json!({"vertexes": [{"digest": digest(step.number), "name": step.title, "started": now}]}))
            }
            News::Said(_, lines) if lines.is_empty() => None,
            News::Said(step, lines) => {
                let data = lines.iter().flat_map(|line| [&line.text[..], b"\n"].concat()).collect::<Vec<u8>>();
                let log = json!({"vertex": digest(step.number), "stream": 1, "data": STANDARD.encode(data), "timestamp": now});
                Some(json!({"logs": [log]}))
            }
            News::Ended(step, done) => {
                let mut vertex = json!({
                    "digest": digest(step.number),
                    "name": step.title,
                    "started": self.started.remove(&step.number),
                    "completed": now,
                });
                if done.cached {
                    vertex["cached"] = Value::Bool(true);
                }
                if let Some(error) = error(done) {
                    vertex["error"] = Value::String(error);
                }
                Some(json!({"vertexes": [vertex]}))
            }
        }
    }
}

fn error(done: &BuildDone) -> Option<String> {
    let canceled = done.canceled.then(|| "context canceled".to_owned());
    Some(done.error.clone()).filter(|error| !error.is_empty()).or(canceled)
}

pub(super) fn warning(found: &BuildWarning) -> Value {
    let short = STANDARD.encode(super::short(found));
    let detail = STANDARD.encode(&found.description);
    json!({"warnings": [{"vertex": digest(0), "level": 1, "short": short, "detail": [detail], "url": found.url}]})
}

/// Steps have numbers here, and digests there.
fn digest(step: u32) -> String {
    format!("sha256:{step:064x}")
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(now.as_nanos()).unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildOutput, BuildStep, build_event::Event};

    use super::{super::steps::Steps, *};

    #[test]
    fn objects_are_dockers() {
        let (mut raw, mut steps, mut objects) = (Raw::default(), Steps::default(), Vec::new());
        for event in [
            Event::Begun(BuildStep { step: 10, title: "RUN x".into() }),
            Event::Output(BuildOutput { step: 10, data: b"hi\n".to_vec(), at: 0 }),
            Event::Done(BuildDone { step: 10, error: "why".into(), ..Default::default() }),
        ] {
            objects.extend(steps.take(&event).iter().filter_map(|news| raw.object(news)));
        }
        let digest = format!("sha256:{}a", "0".repeat(63));
        assert_eq!((&objects[0]["vertexes"][0]["digest"], &objects[0]["vertexes"][0]["name"]), (&json!(digest), &json!("RUN x")));
        assert_eq!((&objects[1]["logs"][0]["data"], &objects[1]["logs"][0]["vertex"]), (&json!("aGkK"), &json!(digest)));
        assert_eq!(
            (&objects[2]["vertexes"][0]["error"], &objects[2]["vertexes"][0]["started"]),
            (&json!("why"), &objects[0]["vertexes"][0]["started"])
        );
    }
}
