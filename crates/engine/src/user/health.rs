//! Whether containers of people are well: a command runs in them now and then, and what it answers is kept.

use std::{sync::Arc, time::Duration};

use model::{
    ErrorKind,
    container::{ContainerState, ImageDefaults},
    pod::Timestamp,
    user::{Health, HealthStatus, Healthcheck, Probe, UserContainerSpec},
};

use super::{UserContainer, record::Phase, run};
use crate::{Inner, clock, container::Container, error::Error};

/// Probes that are kept.
const KEPT: usize = 5;
/// Bytes of what a probe says that are kept.
const OUTPUT: usize = 4096;
/// Nanoseconds between two probes, and for one, where nobody says.
const INTERVAL: u64 = 30_000_000_000;
/// The same while a container comes up.
const START_INTERVAL: u64 = 5_000_000_000;
/// Failures in a row that make it unhealthy.
const RETRIES: u32 = 3;

/// What is done to find it out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// `None`: nobody looks.
    fn of(own: Option<&Healthcheck>, image: &ImageDefaults) -> Option<Self> {
        let from_image = image.healthcheck.clone().unwrap_or_default();
        let check = own.cloned().unwrap_or_default().over(&from_image);
        let command = match check.test.split_first() {
            Some((kind, command)) if kind == "CMD" && !command.is_empty() => command.to_vec(),
            Some((kind, line)) if kind == "CMD-SHELL" && !line.is_empty() => {
                let shell = if image.shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { image.shell.clone() };
                shell.into_iter().chain([line.join(" ")]).collect()
            }
            _ => return None,
        };
        let time = |said: u64, default: u64| Duration::from_nanos(if said == 0 { default } else { said });
        Some(Self {
            command,
            interval: time(check.interval, INTERVAL),
            timeout: time(check.timeout, INTERVAL),
            start_period: Duration::from_nanos(check.start_period),
            start_interval: time(check.start_interval, START_INTERVAL),
            retries: if check.retries == 0 { RETRIES } else { check.retries },
        })
    }

    fn is_coming_up(&self, health: &Health, up: Duration) -> bool {
        health.status == HealthStatus::Starting && up < self.start_period
    }

    /// What is known once a probe has ended that began when the container had been up for so long.
    fn after(&self, mut health: Health, probe: Probe, up: Duration) -> Health {
        if probe.code == 0 {
            (health.status, health.failing) = (HealthStatus::Healthy, 0);
        } else if !self.is_coming_up(&health, up) {
            health.failing = health.failing.saturating_add(1);
            if health.failing >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push(probe);
        let surplus = health.log.len().saturating_sub(KEPT);
        health.log.drain(..surplus);
        health
    }
}

/// What is known of a container that has just been started; `None`: nobody looks.
pub(super) fn at_start(spec: &UserContainerSpec, image: &ImageDefaults) -> Option<Health> {
    Check::of(spec.healthcheck.as_ref(), image).map(|_| Health { status: HealthStatus::Starting, failing: 0, log: Vec::new() })
}

/// What is said of one that does not run any more, as docker has it.
pub(super) fn at_end(health: &mut Option<Health>) {
    if let Some(health) = health {
        health.status = HealthStatus::Unhealthy;
    }
}

impl Inner {
    /// Looks at a container for as long as this run lasts, in a task of its own.
    pub(super) fn watch_health(self: &Arc<Self>, user: &Arc<UserContainer>, container: &Arc<Container>) {
        let Some(check) = Check::of(user.spec().healthcheck.as_ref(), &user.defaults) else { return };
        let (inner, user, container) = (self.clone(), user.clone(), container.clone());
        tokio::spawn(async move {
            let mut state = container.subscribe();
            let over = state.wait_for(|state| matches!(state, ContainerState::Exited { .. }));
            tokio::select! {
                () = inner.look_again_and_again(&user, &container, &check) => {}
                _ = over => {}
            }
        });
    }

    async fn look_again_and_again(self: &Arc<Self>, user: &Arc<UserContainer>, container: &Arc<Container>, check: &Check) {
        let Some(started_at) = run::started_at(&container.state()) else { return };
        let up = || Duration::from_nanos(u64::try_from(clock::now().saturating_sub(started_at)).unwrap_or_default());
        loop {
            let health = user.now.borrow().record.health.clone().or_else(|| at_start(&user.spec(), &user.defaults));
            let Some(health) = health else { return };
            let coming_up = check.is_coming_up(&health, up());
            tokio::time::sleep(if coming_up { check.start_interval } else { check.interval }).await;
            if user.now.borrow().paused {
                continue;
            }
            let began = up();
            let exec = self.tell_exec(user, &check.command);
            let probe = self.probe(container, check).await;
            self.tell_exec_died(user, exec, Some(probe.code));
            if let Err(e) = self.keep_health(user, started_at, (&health, check.after(health.clone(), probe, began))).await {
                tracing::warn!(container = %user.id.short(), error = e.chain(), "health could not be written down");
            }
        }
    }

    async fn probe(self: &Arc<Self>, container: &Container, check: &Check) -> Probe {
        let start = clock::now();
        let ran = self.exec_sync(container.id, check.command.clone(), Some(check.timeout)).await;
        let (code, output) = match ran {
            Ok(ran) => {
                let said = [ran.stdout, ran.stderr].concat();
                let kept = &said[..said.len().min(OUTPUT)];
                (ran.exit_code, String::from_utf8_lossy(kept).into_owned())
            }
            Err(e) if e.kind() == ErrorKind::DeadlineExceeded => {
                (-1, format!("Health check exceeded timeout ({})", in_words(check.timeout)))
            }
            Err(e) => (-1, e.chain()),
        };
        Probe { start, end: clock::now(), code, output }
    }

    /// Keeps what is known now. On disk it is where it matters to the next daemon: not every time that all is well.
    async fn keep_health(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        started_at: Timestamp,
        (before, after): (&Health, Health),
    ) -> Result<(), Error> {
        let durable = (before.status, before.failing) != (after.status, after.failing) && before.status != HealthStatus::Unhealthy;
        let changed = (before.status != after.status).then_some(after.status);
        let put = |record: &mut super::record::UserRecord| {
            // It may have ended meanwhile.
            if record.phase == Phase::Running && record.last.started_at == Some(started_at) {
                record.health = Some(after);
            }
        };
        if durable || changed.is_some() {
            user.change(self, put).await?;
        } else {
            user.note(put).await;
        }
        if let Some(status) = changed {
            self.tell_user(user, &format!("health_status: {}", status.name()), []);
        }
        Ok(())
    }
}

/// A time as docker writes it: `1m30s`.
fn in_words(time: Duration) -> String {
    let (seconds, rest) = (time.as_secs(), time.subsec_nanos());
    if seconds == 0 {
        return format!("{}ms", f64::from(rest) / 1e6);
    }
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:09}").trim_end_matches('0').to_owned() };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64) -> Check {
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        let image =
            ImageDefaults { healthcheck: Some(Healthcheck { test, start_period, ..Default::default() }), ..Default::default() };
        Check::of(Some(&Healthcheck { retries: 2, ..Default::default() }), &image).unwrap()
    }

    fn probe(code: i32) -> Probe {
        Probe { start: 0, end: 1, code, output: String::new() }
    }

    #[test]
    fn what_is_said_is_laid_over_the_image() {
        let check = check(7);
        assert_eq!((check.command.as_slice(), check.retries), (["true".to_owned()].as_slice(), 2));
        assert_eq!((check.start_period.as_nanos(), check.interval.as_secs(), check.start_interval.as_secs()), (7, 30, 5));
        let of = |test: &[&str], shell: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let own = Healthcheck { test: owned(test), ..Default::default() };
            Check::of(Some(&own), &ImageDefaults { shell: owned(shell), ..Default::default() }).map(|check| check.command.join("|"))
        };
        assert_eq!(of(&["CMD-SHELL", "a b"], &[]).unwrap(), "/bin/sh|-c|a b");
        assert_eq!(of(&["CMD-SHELL", "a b"], &["ash", "-ec"]).unwrap(), "ash|-ec|a b");
        for nobody in [&["NONE"][..], &[], &["CMD"], &["OTHER", "x"]] {
            assert_eq!(of(nobody, &[]), None, "{nobody:?}");
        }
    }

    #[test]
    fn failures_count_from_the_start_period_on() {
        let check = check(10_000_000_000);
        let new = || Health { status: HealthStatus::Starting, failing: 0, log: Vec::new() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(60));
        let fails = |health, up| check.after(health, probe(1), up);
        let health = fails(fails(fails(new(), early), early), early);
        assert_eq!((health.status, health.failing, health.log.len()), (HealthStatus::Starting, 0, 3));
        let health = fails(health, late);
        assert_eq!((health.status, health.failing), (HealthStatus::Starting, 1));
        let health = fails(health, late);
        assert_eq!((health.status, health.failing), (HealthStatus::Unhealthy, 2));
        let health = check.after(health, probe(0), late);
        assert_eq!((health.status, health.failing, health.log.len()), (HealthStatus::Healthy, 0, KEPT));
        // Once it was well, the start period is over.
        let health = fails(check.after(new(), probe(0), early), early);
        assert_eq!((health.status, health.failing), (HealthStatus::Healthy, 1));
    }

    #[test]
    fn times_in_words() {
        for (time, words) in [(500, "500ms"), (30_000, "30s"), (90_500, "1m30.5s"), (3_600_000, "1h0m0s")] {
            assert_eq!(in_words(Duration::from_millis(time)), words);
        }
    }
}
