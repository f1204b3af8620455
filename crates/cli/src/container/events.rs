//! `creel events`: what happens, line by line.

use api::creel::{Event, EventsRequest};
use serde_json::{Value, json};

use super::{args::Events, logs::instant, ps::filters};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    output, time,
};

/// Prints events until there are no more, or until it is interrupted.
pub(crate) async fn events(client: &mut Client, format: &Format, args: &Events) -> Result<Exit, Error> {
    let request = EventsRequest {
        since: instant("--since", args.since.as_deref())?,
        until: instant("--until", args.until.as_deref())?,
        filters: filters(&args.filter)?,
    };
    let mut events = client.system.events(request).await.map_err(error::daemon)?.into_inner();
    while let Some(event) = events.message().await.map_err(error::daemon)? {
        match format {
            Format::Table => output::print(&line(&event))?,
            Format::Json => output::print(&format!("{}\n", value(&event)))?,
            Format::Template { .. } => format.print(&[value(&event)], String::new)?,
        }
    }
    Ok(Exit(0))
}

/// `TIME TYPE ACTION ID (KEY=VALUE, ...)`.
fn line(event: &Event) -> String {
    let attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{} {} {} {}{attributes}\n", time::rfc3339(event.time), event.r#type, event.action, event.id)
}

fn value(event: &Event) -> Value {
    json!({
        "status": event.action,
        "id": event.id,
        "from": event.attributes.get("image").cloned().unwrap_or_default(),
        "Type": event.r#type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "ID": event.id,
        "scope": "local",
        "time": event.time / 1_000_000_000,
        "timeNano": event.time,
        "Time": event.time / 1_000_000_000,
        "TimeNano": event.time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let event = Event {
            r#type: "container".into(),
            action: "die".into(),
            id: "ab".into(),
            attributes: [("exitCode".to_owned(), "3".to_owned()), ("name".to_owned(), "x".to_owned())].into(),
            time: 1_795_273_624_000_000_001,
        };
        assert_eq!(line(&event), "2026-11-21T15:07:04.000000001Z container die ab (exitCode=3, name=x)\n");
        assert_eq!(value(&event)["Actor"]["Attributes"]["exitCode"], "3");
    }
}
