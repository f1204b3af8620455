//! Which pod or container a client means: a whole id, or the beginning of just one.

use std::{str::FromStr, sync::Arc};

use engine::{Container, Engine, Pod};
use tonic::Status;

use super::{convert::is_id_prefix, status};

/// The pod that is meant.
pub(crate) fn pod(engine: &Engine, text: &str) -> Result<Arc<Pod>, Status> {
    match whole(text, "pod_sandbox_id")? {
        Some(id) => engine.pod(id).map_err(|e| status::of_engine(&e)),
        None => only("pod", text, engine.pods(), |pod| pod.id.to_string()),
    }
}

/// The container that is meant.
pub(crate) fn container(engine: &Engine, text: &str) -> Result<Arc<Container>, Status> {
    match whole(text, "container_id")? {
        Some(id) => engine.container(id).map_err(|e| status::of_engine(&e)),
        None => only("container", text, engine.containers(), |container| container.id.to_string()),
    }
}

fn whole<Id: FromStr>(text: &str, field: &str) -> Result<Option<Id>, Status> {
    if text.is_empty() {
        return Err(status::bad_field(field, "missing"));
    }
    Ok(text.parse().ok())
}

/// The one that begins with `text`.
fn only<T>(what: &str, text: &str, all: Vec<T>, id: impl Fn(&T) -> String) -> Result<T, Status> {
    if !is_id_prefix(text) {
        return Err(status::unknown_id(what, text));
    }
    let mut matching = all.into_iter().filter(|one| id(one).starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(status::unknown_id(what, text)),
        (Some(_), Some(_)) => Err(status::bad_field("id", &format!("more than one {what} begins with {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_just_one_will_do() {
        let all = || vec!["abc1".to_owned(), "abd2".to_owned()];
        let find = |text| only("pod", text, all(), String::clone);
        assert_eq!(find("abc").unwrap(), "abc1");
        assert_eq!(find("ab").unwrap_err().code(), tonic::Code::InvalidArgument);
        for unknown in ["f", "ABC", "../", "abc12"] {
            assert_eq!(find(unknown).unwrap_err().code(), tonic::Code::NotFound, "{unknown}");
        }
        assert_eq!(whole::<model::PodId>("", "f").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
