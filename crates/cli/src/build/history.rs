//! `creel build history`: builds that are over, and those that run.

use std::time::Duration;

use api::creel::{ForgetPastRequest, PastBuild, PastBuildRef, PastBuildsRequest, PastStep, build_event::Event};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::progress::{Mode, Shown, harmless};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    output, time,
    volume::filters,
};

/// Which build is meant.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Id or its beginning; ^1 is the one before the latest
    #[arg(default_value = "latest")]
    build: String,
}

/// `creel build history`
#[derive(Debug, Subcommand)]
pub(crate) enum History {
    /// List builds, the youngest first
    #[command(visible_alias = "list")]
    Ls {
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// status=running|completed|error|canceled, id=, name=
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
    /// Show what was asked for and what came of it
    Inspect(Which),
    /// Show what happened, as it was shown then
    Logs(Which),
    /// Forget builds; what they have made stays
    #[command(visible_alias = "remove")]
    Rm {
        /// All that have ended
        #[arg(short, long)]
        all: bool,
        /// Ids or their beginnings
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        builds: Vec<String>,
    },
}

/// Does it.
pub(super) async fn history(client: &mut Client, format: &Format, command: History) -> Result<Exit, Error> {
    match command {
        History::Ls { quiet, no_trunc, filter } => list(client, format, (quiet, no_trunc), &filter).await,
        History::Inspect(which) => inspect(client, format, which).await,
        History::Logs(which) => logs(client, which).await,
        History::Rm { builds, all } => {
            let gone = client.builds.forget_past(ForgetPastRequest { builds, all }).await.map_err(error::daemon)?.into_inner();
            output::lines(gone.gone)?;
            Ok(Exit(0))
        }
    }
}

async fn list(client: &mut Client, format: &Format, (quiet, no_trunc): (bool, bool), filter: &[String]) -> Result<Exit, Error> {
    let request = PastBuildsRequest { filters: filters(filter)? };
    let builds = client.builds.past(request).await.map_err(error::daemon)?.into_inner().builds;
    let id = |build: &PastBuild| if no_trunc { build.id.clone() } else { output::short(&build.id) };
    if quiet {
        output::lines(builds.iter().map(id))?;
        return Ok(Exit(0));
    }
    let values: Vec<Value> = builds.iter().map(|build| summary(build, &id(build))).collect();
    format.print(&values, || {
        let row = |build: &PastBuild| {
            let ago = format!("{} ago", output::age(build.begun_at));
            vec![id(build), harmless(&build.name), build.status.clone(), ago, span(took(build))]
        };
        output::table(&["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"], &builds.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(Exit(0))
}

/// How long it took, or takes.
fn took(build: &PastBuild) -> Duration {
    match build.ended_at {
        0 => output::since(build.begun_at),
        end => Duration::from_nanos(u64::try_from(end - build.begun_at).unwrap_or_default()),
    }
}

/// `1.2s`, `1m 05s`, `2h 01m`
fn span(time: Duration) -> String {
    let (seconds, minutes) = (time.as_secs(), time.as_secs() / 60);
    match minutes {
        0 => format!("{:.1}s", time.as_secs_f64()),
        1..60 => format!("{minutes}m {:02}s", seconds % 60),
        _ => format!("{}h {:02}m", minutes / 60, minutes % 60),
    }
}

/// A row as JSON, and for templates.
fn summary(build: &PastBuild, id: &str) -> Value {
    let ended = (build.ended_at > 0).then(|| time::rfc3339(build.ended_at));
    json!({
        "ID": id,
        "Ref": build.id,
        "Name": build.name,
        "Status": build.status,
        "CreatedAt": time::rfc3339(build.begun_at),
        "CompletedAt": ended,
        "Duration": span(took(build)),
        "TotalSteps": build.total_steps,
        "CompletedSteps": build.completed_steps,
        "CachedSteps": build.cached_steps,
    })
}

async fn inspect(client: &mut Client, format: &Format, which: Which) -> Result<Exit, Error> {
    let build = client.builds.inspect_past(PastBuildRef { build: which.build }).await.map_err(error::daemon)?.into_inner();
    match format {
        Format::Table => output::print(&page(&build))?,
        Format::Json => output::json(&value(&build))?,
        Format::Template { .. } => format.print(&[value(&build)], String::new)?,
    }
    Ok(Exit(0))
}

/// Everything about a build.
fn value(build: &PastBuild) -> Value {
    let mut value = summary(build, &build.id);
    value["Context"] = json!(build.context);
    value["Dockerfile"] = json!(build.file);
    value["Target"] = json!(build.target);
    value["Tags"] = json!(build.names);
    value["BuildArgs"] = json!(build.args);
    value["Platform"] = json!(build.platforms);
    value["Image"] = json!(build.image);
    value["Digest"] = json!(build.digest);
    value["Error"] =
        build.failed.as_ref().map_or(Value::Null, |failed| json!({"Message": failed.message, "Source": failed.excerpt}));
    value["Steps"] = build.steps.iter().map(step).collect();
    value
}

fn step(step: &PastStep) -> Value {
    let (begun, done) = (step.step.clone().unwrap_or_default(), step.done.clone());
    let took = done.as_ref().map(|done| Duration::from_nanos(done.took).as_secs_f64());
    let done = done.unwrap_or_default();
    json!({
        "Number": begun.step, "Name": begun.title, "Started": Duration::from_nanos(step.begun).as_secs_f64(), "Seconds": took,
        "Cached": done.cached, "Canceled": done.canceled, "Error": done.error,
    })
}

/// For people.
fn page(build: &PastBuild) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{:<16}{}\n", format!("{name}:"), harmless(value)));
        }
    };
    field("Build ID", &build.id);
    field("Name", &build.name);
    field("Context", &build.context);
    field("Dockerfile", &build.file);
    field("Target", &build.target);
    field("Platform", &build.platforms.join(", "));
    field("Tags", &build.names.join(", "));
    field("Build Args", &build.args.join(", "));
    field("Started", &time::local(build.begun_at));
    field("Duration", &span(took(build)));
    field("Status", &build.status);
    let cached = (build.cached_steps * 100).checked_div(build.total_steps).unwrap_or_default();
    field("Build Steps", &format!("{}/{} ({cached}% cached)", build.completed_steps, build.total_steps));
    field("Image", &build.image);
    field("Digest", &build.digest);
    if !build.steps.is_empty() {
        let header = ["STEP", "TOOK", "NAME"];
        text.push_str(&format!("\n{}", output::table(&header, &build.steps.iter().map(row).collect::<Vec<_>>())));
    }
    if let Some(failed) = &build.failed {
        text.push_str(&format!("\n{}ERROR: {}\n", harmless(&failed.excerpt), harmless(&failed.message)));
    }
    text
}

fn row(step: &PastStep) -> Vec<String> {
    let begun = step.step.clone().unwrap_or_default();
    let took = match &step.done {
        None => "-".to_owned(),
        Some(done) if done.cached => "CACHED".to_owned(),
        Some(done) if done.canceled => "CANCELED".to_owned(),
        Some(done) if !done.error.is_empty() => "ERROR".to_owned(),
        Some(done) => span(Duration::from_nanos(done.took)),
    };
    vec![format!("#{}", begun.step), took, harmless(&begun.title)]
}

async fn logs(client: &mut Client, which: Which) -> Result<Exit, Error> {
    let mut events = client.builds.replay_past(PastBuildRef { build: which.build }).await.map_err(error::daemon)?.into_inner();
    let mut shown = Shown::new(Mode::Plain)?;
    while let Some(event) = events.message().await.map_err(error::daemon)? {
        match event.event {
            // That it has failed then is no failure now.
            Some(Event::Failed(failed)) => output::note(&shown.failed(&failed).chain()),
            Some(event) => shown.event(&event)?,
            None => {}
        }
    }
    Ok(Exit(0))
}

#[cfg(test)]
mod tests {
    use api::creel::{BuildDone, BuildFailed, BuildStep};

    use super::*;

    #[test]
    fn times_are_short() {
        let shown = |millis| span(Duration::from_millis(millis));
        assert_eq!([shown(1_234), shown(65_000), shown(7_260_000)], ["1.2s", "1m 05s", "2h 01m"]);
    }

    #[test]
    fn a_page_says_what_there_is() {
        let done = BuildDone { cached: true, ..BuildDone::default() };
        let one = PastStep { step: Some(BuildStep { step: 1, title: "[1/2] FROM a\u{1b}[2J".into() }), begun: 0, done: Some(done) };
        let build = PastBuild {
            id: "ab".into(),
            name: "app".into(),
            status: "Error".into(),
            begun_at: 1,
            ended_at: 1_500_000_001,
            args: vec!["TOKEN".into()],
            failed: Some(BuildFailed { message: "why".into(), excerpt: "D:1\n".into() }),
            steps: vec![one],
            total_steps: 4,
            completed_steps: 3,
            cached_steps: 1,
            ..PastBuild::default()
        };
        let page = page(&build);
        for part in [
            "Build Args:     TOKEN\n",
            "Duration:       1.5s\n",
            "3/4 (25% cached)",
            "#1     CACHED   [1/2] FROM a\n",
            "\nD:1\nERROR: why\n",
        ] {
            assert!(page.contains(part), "{part:?}: {page}");
        }
        assert!(!page.contains("Target"));
        assert_eq!(value(&build)["Steps"][0]["Cached"], true);
    }
}
