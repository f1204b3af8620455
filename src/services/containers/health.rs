//! Health checks of containers of people, in both directions.

use api::creel as own;
use model::user::{Health, HealthStatus, Healthcheck};
use tonic::Status;

use super::convert::invalid;

/// The shortest time that is one, in nanoseconds.
const LEAST: i64 = 1_000_000;

/// What is said of it.
pub(super) fn check(asked: Option<&own::Healthcheck>) -> Result<Option<Healthcheck>, Status> {
    let Some(asked) = asked else { return Ok(None) };
    match asked.test.as_slice() {
        [] => {}
        [none] if none == "NONE" => {}
        [kind, _, ..] if kind == "CMD" || kind == "CMD-SHELL" => {}
        _ => return Err(invalid("Healthcheck: the test is neither NONE, nor CMD or CMD-SHELL with a command")),
    }
    let time = |name: &str, nanoseconds: i64| match nanoseconds {
        0 => Ok(0),
        LEAST.. => Ok(nanoseconds.unsigned_abs()),
        _ => Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms"))),
    };
    let retries = u32::try_from(asked.retries).map_err(|_| invalid("Retries in Healthcheck cannot be negative"))?;
    Ok(Some(Healthcheck {
        test: asked.test.clone(),
        interval: time("Interval", asked.interval)?,
        timeout: time("Timeout", asked.timeout)?,
        start_period: time("StartPeriod", asked.start_period)?,
        start_interval: time("StartInterval", asked.start_interval)?,
        retries,
    }))
}

/// What is in force, as it is shown.
pub(super) fn shown(check: &Healthcheck) -> own::Healthcheck {
    let time = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    own::Healthcheck {
        test: check.test.clone(),
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: i32::try_from(check.retries).unwrap_or(i32::MAX),
    }
}

/// What is known.
pub(super) fn state(health: &Health) -> own::Health {
    use own::health::{Probe, Status};
    let status = match health.status {
        HealthStatus::Starting => Status::Starting,
        HealthStatus::Healthy => Status::Healthy,
        HealthStatus::Unhealthy => Status::Unhealthy,
    };
    let probe = |probe: &model::user::Probe| Probe {
        start: probe.start,
        end: probe.end,
        exit_code: probe.code,
        output: probe.output.clone(),
    };
    own::Health { status: status.into(), failing_streak: health.failing, log: health.log.iter().map(probe).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_check_is_refused() {
        let with = |test: &[&str], interval, retries| {
            let test = test.iter().map(|text| (*text).to_owned()).collect();
            check(Some(&own::Healthcheck { test, interval, retries, ..Default::default() }))
        };
        assert_eq!(check(None).unwrap(), None);
        let good = with(&["CMD-SHELL", "true"], LEAST, 2).unwrap().unwrap();
        assert_eq!((good.test.len(), good.interval, good.retries), (2, 1_000_000, 2));
        assert_eq!(shown(&good).interval, LEAST);
        assert!(with(&["NONE"], 0, 0).is_ok() && with(&[], 0, 0).is_ok());
        for (test, interval, retries) in
            [(&["CMD"][..], 0, 0), (&["x"], 0, 0), (&["NONE", "x"], 0, 0), (&[], 5, 0), (&[], -LEAST, 0), (&[], 0, -1)]
        {
            assert!(with(test, interval, retries).is_err(), "{test:?} {interval} {retries}");
        }
    }
}
