//! Scopes: asked for, and given back (org.freedesktop.systemd1(5)).

use std::path::{Path, PathBuf};

use crate::{
    Error,
    bus::{BUS, Bus},
    message::{Message, Reader, Writer},
};

/// Where the system bus listens (dbus-daemon(1)).
const SOCKET: &str = "/run/dbus/system_bus_socket";
const MANAGER: (&str, &str, &str) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Whether systemd is the system's manager (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A scope to be made around a process.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name, with `.scope`.
    pub name: String,
    /// The slice that it is made in.
    pub slice: String,
    /// For people.
    pub description: String,
    /// The process that is moved into it.
    pub pid: u32,
}

/// systemd's manager of units, at the end of the system bus.
#[derive(Clone, Debug)]
pub struct Manager {
    socket: PathBuf,
}

impl Default for Manager {
    fn default() -> Self {
        Self { socket: SOCKET.into() }
    }
}

impl Manager {
    /// The one behind another bus; for tests.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks it for its version.
    ///
    /// # Errors
    /// It does not answer.
    pub fn check(&self) -> Result<(), Error> {
        let mut body = Writer::default();
        body.string(MANAGER.2);
        body.string("Version");
        let of = (MANAGER.0, MANAGER.1, "org.freedesktop.DBus.Properties");
        Bus::connect(&self.socket)?.call(of, "Get", "ss", &body.finish()).map(|_| ())
    }

    /// Makes a scope around a process and waits until it is there. Its cgroup is the caller's from then on.
    ///
    /// # Errors
    /// systemd refuses or fails; the process is where it was, or dead.
    pub fn start(&self, scope: &Scope) -> Result<(), Error> {
        let mut bus = self.listen()?;
        let job = bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &start_body(scope))?;
        wait(&mut bus, &scope.name, &job)
    }

    /// Stops a scope: what is left in it gets SIGTERM and later SIGKILL, and its cgroup goes. Not there is fine.
    ///
    /// # Errors
    /// systemd refuses or fails.
    pub fn stop(&self, name: &str) -> Result<(), Error> {
        let mut bus = self.listen()?;
        let mut body = Writer::default();
        body.string(name);
        body.string("replace");
        match bus.call(MANAGER, "StopUnit", "ss", &body.finish()) {
            Ok(job) => wait(&mut bus, name, &job),
            Err(Error::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Signals come to those who subscribed, and only to them.
    fn listen(&self) -> Result<Bus, Error> {
        let mut bus = Bus::connect(&self.socket)?;
        let mut rule = Writer::default();
        rule.string(JOBS);
        bus.call(BUS, "AddMatch", "s", &rule.finish())?;
        bus.call(MANAGER, "Subscribe", "", &[])?;
        Ok(bus)
    }
}

fn start_body(scope: &Scope) -> Vec<u8> {
    let mut body = Writer::default();
    body.string(&scope.name);
    // Names are functions of random ids: one that is there is not ours.
    body.string("fail");
    body.array(8, |properties| {
        text(properties, "Description", &scope.description);
        text(properties, "Slice", &scope.slice);
        flag(properties, "Delegate", true);
        // Not stopped before the kubelet, which wants to stop its pods itself at shutdown.
        flag(properties, "DefaultDependencies", false);
        // A scope that failed is forgotten as well, and needs no ResetFailed.
        text(properties, "CollectMode", "inactive-or-failed");
        // Limits are set below the scope; the manager's default would be one more that nobody asked for.
        property(properties, "TasksMax", "t", |value| value.u64(u64::MAX));
        property(properties, "PIDs", "au", |value| value.array(4, |pids| pids.u32(scope.pid)));
    });
    body.array(8, |_| {});
    body.finish()
}

fn property(out: &mut Writer, name: &str, signature: &str, value: impl FnOnce(&mut Writer)) {
    out.align(8);
    out.string(name);
    out.signature(signature);
    value(out);
}

fn text(out: &mut Writer, name: &str, value: &str) {
    property(out, name, "s", |out| out.string(value));
}

fn flag(out: &mut Writer, name: &str, value: bool) {
    property(out, name, "b", |out| out.u32(value.into()));
}

/// Waits for the end of a job, given by the answer to the call that made it.
fn wait(bus: &mut Bus, unit: &str, answer: &[u8]) -> Result<(), Error> {
    let job = Reader::new(answer).string()?;
    loop {
        let Message::Signal { member, body, .. } = bus.signal("waiting for systemd's job")? else { continue };
        if member != "JobRemoved" {
            continue;
        }
        let mut signal = Reader::new(&body);
        signal.u32()?;
        if signal.string()? != job {
            continue;
        }
        signal.string()?;
        return match signal.string()?.as_str() {
            "done" => Ok(()),
            result => Err(Error::Job { unit: unit.to_owned(), result: result.to_owned() }),
        };
    }
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
