//! creel's own API for builds that are over, and those that run.

use api::creel::{self as own, build_event::Event};
use engine::{
    Engine,
    build::{BuildEvent, PastBuild},
};
use tonic::Status;

use super::{builds::said, filters::Filters, status};

/// Builds that one request forgets.
const MOST: usize = 1000;
/// What a Dockerfile is called that needs no mention.
const USUAL: [&str; 3] = ["", "Dockerfile", "Containerfile"];

/// Those that fit, without their steps.
pub(super) fn list(engine: &Engine, request: own::PastBuildsRequest) -> Result<own::PastBuildsResponse, Status> {
    let filters = Filters::read(request.filters, &["status", "id", "name"])?;
    let fits = |build: &own::PastBuild| {
        filters.any("status", |status| status.eq_ignore_ascii_case(&build.status))
            && filters.any("id", |id| build.id.starts_with(id))
            && filters.any("name", |name| build.name.contains(name))
    };
    let bare = |build: PastBuild| own::PastBuild { steps: Vec::new(), ..shown(build) };
    Ok(own::PastBuildsResponse { builds: engine.past_builds().into_iter().map(bare).filter(fits).collect() })
}

/// One.
pub(super) fn inspect(engine: &Engine, which: &own::PastBuildRef) -> Result<own::PastBuild, Status> {
    engine.past_build(&which.build).map(shown).map_err(|e| status::of_engine(&e))
}

/// What happened in one.
pub(super) async fn replay(engine: &Engine, which: &own::PastBuildRef) -> Result<Vec<own::BuildEvent>, Status> {
    let build = engine.past_build(&which.build).map_err(|e| status::of_engine(&e))?;
    let output = engine.said_by(build.id).await.map_err(|e| status::of_engine(&e))?;
    let begun = |number: u32| build.steps.iter().find(|step| step.number == number).map(|step| step.begun);
    let mut events = Vec::new();
    for (at, event) in build.replayed(output) {
        let step = if let BuildEvent::Output { step, .. } = &event { begun(*step) } else { None };
        let mut event = said(event);
        if let (Some(Event::Output(output)), Some(begun)) = (&mut event.event, step) {
            // Never 0, which would be now.
            output.at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).saturating_sub(begun).max(1);
        }
        events.push(event);
    }
    let shown = shown(build);
    let last = match (shown.failed, shown.ended_at) {
        (Some(failed), _) => Some(Event::Failed(failed)),
        (None, 0) => None,
        (None, _) => Some(Event::Built(own::BuiltImage { id: shown.image, digest: shown.digest, ..Default::default() })),
    };
    events.extend(last.map(|last| own::BuildEvent { event: Some(last) }));
    Ok(events)
}

/// Forgets some.
pub(super) async fn forget(engine: &Engine, request: own::ForgetPastRequest) -> Result<own::ForgetPastResponse, Status> {
    match (request.all, request.builds.len()) {
        (true, 0) | (false, 1..=MOST) => {}
        (true, _) => return Err(status::bad_field("builds", "all of them are meant already")),
        (false, 0) => return Err(status::bad_field("builds", "none, and not all")),
        (false, _) => return Err(status::bad_field("builds", &format!("more than {MOST}"))),
    }
    let gone = engine.forget_builds(request.builds).await.map_err(|e| status::of_engine(&e))?;
    Ok(own::ForgetPastResponse { gone: gone.iter().map(ToString::to_string).collect() })
}

/// What a build is called, as docker calls it.
fn name(build: &PastBuild) -> String {
    let asked = &build.asked;
    let place = asked.context.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let place = if place.is_empty() { "-" } else { place };
    let file = if USUAL.contains(&asked.file.as_str()) { String::new() } else { format!("/{}", asked.file) };
    let target = if asked.target.is_empty() { String::new() } else { format!(" ({})", asked.target) };
    format!("{place}{file}{target}")
}

fn shown(build: PastBuild) -> own::PastBuild {
    let done = |step: &engine::build::PastStep| step.took.is_some();
    let count = |fits: &dyn Fn(&engine::build::PastStep) -> bool| build.steps.iter().filter(|step| fits(step)).count() as u64;
    own::PastBuild {
        id: build.id.to_string(),
        name: name(&build),
        status: build.status().to_owned(),
        begun_at: build.begun,
        ended_at: build.ended.unwrap_or_default(),
        total_steps: build.steps.len() as u64 + build.more,
        completed_steps: count(&|step| done(step) && !step.canceled && step.error.is_empty()),
        cached_steps: count(&|step| step.cached),
        steps: build.steps.into_iter().map(step).collect(),
        context: build.asked.context,
        file: build.asked.file,
        target: build.asked.target,
        names: build.asked.names,
        args: build.asked.args,
        platforms: build.asked.platforms,
        image: build.image.unwrap_or_default(),
        digest: build.manifest.unwrap_or_default(),
        failed: build.failure.map(|failure| own::BuildFailed { message: failure.message, excerpt: failure.excerpt }),
    }
}

fn step(step: engine::build::PastStep) -> own::PastStep {
    let engine::build::PastStep { number, title, begun, took, cached, canceled, error } = step;
    own::PastStep {
        step: Some(own::BuildStep { step: number, title }),
        begun,
        done: took.map(|took| own::BuildDone { step: number, took, cached, canceled, error }),
    }
}

#[cfg(test)]
mod tests {
    use engine::build::Asked;

    use super::*;

    #[test]
    fn names_are_dockers() {
        for (context, file, target, wanted) in [
            ("/home/me/app/", "Dockerfile", "", "app"),
            ("/home/me/app", "web.Dockerfile", "dev", "app/web.Dockerfile (dev)"),
            ("", "Dockerfile", "", "-"),
        ] {
            let text = |text: &str| text.to_owned();
            let asked = Asked { context: text(context), file: text(file), target: text(target), ..Asked::default() };
            let (id, steps) = (model::BuildId::from_bytes([0; 32]), Vec::new());
            let build = PastBuild { id, asked, begun: 0, ended: None, failure: None, image: None, manifest: None, steps, more: 0 };
            assert_eq!(name(&build), wanted);
        }
    }
}
