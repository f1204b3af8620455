//! A pod's user namespace. The supervisor never enters it: it holds it from outside, where it can do what the namespace's
//! root may not (make device nodes, bind the host's files, join cgroups). A container is built there, by a process that
//! owns what it makes as the namespace's root, and only then goes inside, with a copy of the mounts that belongs to the
//! namespace and in which nothing that was made outside can be taken away (mount_namespaces(7), "locked").

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use model::{plan::PodPlan, pod};
use sys::{
    Errno,
    ns::{self, Kinds, New},
    proc::Proc,
    process::{self, Fork, Process},
    userns,
};

use crate::{
    error::{At, Error, Failure, Step, refuse},
    report::{self, Listener, Message, Reporter},
    sysctl::{self, Whose},
};

const LIMIT: Duration = Duration::from_secs(20);

/// The namespace, from outside.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    fd: OwnedFd,
    map: pod::UserNamespace,
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl UserNamespace {
    /// Makes the namespace, and others that belong to it, which the calling process is then in. A namespace belongs to the
    /// user namespace of the process that makes it: so another process, the founder, makes them all, and ends.
    pub(crate) fn found(plan: &PodPlan, map: pod::UserNamespace, others: New, proc: &Proc) -> Result<Self, Error> {
        let (listener, reporter) = report::pair()?;
        let founder = match process::fork(New::NEWUSER, None) {
            Ok(Fork::Child) => run_founder(plan, others, proc, &reporter),
            Ok(Fork::Parent(founder)) => founder,
            // clone(2): the limit of user_namespaces(7), or more than 32 of them in each other.
            Err(Errno::NOSPC) => {
                return Err(Error::Plan {
                    what: "user namespace".to_owned(),
                    why: "/proc/sys/user/max_user_namespaces is reached",
                });
            }
            Err(errno) => return Err(Error::call("clone3(CLONE_NEWUSER)")(errno)),
        };
        drop(reporter);
        let joined = join(&founder, &listener, map, others, proc);
        let _ = process::signal(&founder, model::Signal::KILL);
        let _ = process::wait(&founder, LIMIT);
        joined.map(|fd| Self { fd, map })
    }

    /// The host's number of a user of the pod.
    pub(crate) fn uid(&self, uid: u32) -> Step<u32> {
        self.map.uids.to_host(uid).map_or_else(|| refuse(format!("user {uid}"), NOT_MAPPED), Ok)
    }

    /// The host's number of a group of the pod.
    pub(crate) fn gid(&self, gid: u32) -> Step<u32> {
        self.map.gids.to_host(gid).map_or_else(|| refuse(format!("group {gid}"), NOT_MAPPED), Ok)
    }

    /// Its mapping.
    pub(crate) fn map(&self) -> pod::UserNamespace {
        self.map
    }

    /// The host's numbers of the namespace's root.
    pub(crate) fn root(&self) -> (u32, u32) {
        (self.map.uids.host_id, self.map.gids.host_id)
    }

    /// Moves the calling process inside, as root.
    pub(crate) fn enter(&self) -> Step<()> {
        ns::enter_link(&self.fd, Kinds::USER).at(|| "setns(CLONE_NEWUSER)".to_owned())?;
        userns::become_root().at(|| "become root of the user namespace".to_owned())
    }

    /// As [`process::fork`], with the new process inside, as root, and its new namespaces belonging to this one. A process
    /// between goes inside and makes it, as a child of the calling one; before that it does `outside`, of which the new one
    /// inherits what is inherited.
    pub(crate) fn fork(&self, new: New, outside: impl FnOnce(&Reporter) -> Step<()>) -> Result<Fork, Error> {
        let (listener, reporter) = report::pair()?;
        match process::fork(New::empty(), None).map_err(Error::call("clone3"))? {
            Fork::Child => match outside(&reporter).and_then(|()| self.fork_sibling(new)) {
                Ok(Fork::Child) => Ok(Fork::Child),
                Ok(Fork::Parent(child)) => {
                    reporter.child(&child);
                    process::exit_now(0)
                }
                Err(failure) => {
                    reporter.fail(&failure);
                    process::exit_now(1)
                }
            },
            Fork::Parent(between) => {
                drop(reporter);
                let message = loop {
                    match listener.next(Instant::now() + LIMIT) {
                        Ok(Some(Message::Warning(_))) => {}
                        other => break other,
                    }
                };
                let _ = process::signal(&between, model::Signal::KILL);
                let exit = process::wait(&between, LIMIT).ok();
                match message {
                    Ok(Some(Message::Child(child))) => Ok(Fork::Parent(child)),
                    other => Err(unheard(other, exit)),
                }
            }
        }
    }
}

impl UserNamespace {
    fn fork_sibling(&self, new: New) -> Step<Fork> {
        self.enter()?;
        process::fork_sibling(new).at(|| "clone3(CLONE_PARENT)".to_owned())
    }
}

const NOT_MAPPED: &str = "is not among the ids of the pod's user namespace";

fn join(founder: &Process, listener: &Listener, map: pod::UserNamespace, others: New, proc: &Proc) -> Result<OwnedFd, Error> {
    userns::map(proc, founder.pid, &map).map_err(Error::host("map ids"))?;
    // EPIPE: it has died meanwhile, which the listener says better.
    let _ = listener.go();
    match listener.next(Instant::now() + LIMIT) {
        Ok(Some(Message::Ready)) => {}
        other => return Err(unheard(other, None)),
    }
    let kinds = [
        (New::NEWNET, Kinds::NETWORK),
        (New::NEWIPC, Kinds::INTER_PROCESS_COMMUNICATION),
        (New::NEWUTS, Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ];
    let kinds = kinds.into_iter().filter(|(new, _)| others.contains(*new)).fold(Kinds::empty(), |all, (_, kind)| all | kind);
    ns::enter(founder, kinds).map_err(Error::call("setns to the pod's namespaces"))?;
    let ipc = ns::own("ipc").map_err(Error::call("open IPC namespace"))?;
    ns::owner(ipc).map_err(Error::call("ioctl(NS_GET_USERNS)"))
}

fn unheard(message: Result<Option<Message>, Errno>, exit: Option<process::Exit>) -> Error {
    match message {
        Ok(Some(Message::Failed(Failure { step, reason, .. }))) => Error::Step { step, source: reason },
        Ok(None) => Error::Died { exit },
        Ok(Some(_)) => Error::Report,
        Err(_) => Error::Deadline { what: "making the pod's user namespace", limit: LIMIT },
    }
}

fn run_founder(plan: &PodPlan, others: New, proc: &Proc, reporter: &Reporter) -> ! {
    match prepare_founder(plan, others, proc, reporter) {
        Ok(()) => reporter.ready(),
        Err(failure) => reporter.fail(&failure),
    }
    // The supervisor ends it, when it has joined what would end with it.
    reporter.wait_go();
    process::exit_now(0)
}

fn prepare_founder(plan: &PodPlan, others: New, proc: &Proc, reporter: &Reporter) -> Step<()> {
    if !reporter.wait_go() {
        return refuse("make user namespace", "nobody has mapped its ids");
    }
    userns::become_root().at(|| "become root of the user namespace".to_owned())?;
    let killed = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(killed).at(|| "set death signal".to_owned())?;
    ns::unshare(others).at(|| "unshare pod's namespaces".to_owned())?;
    // The IPC namespace's are writable for its root alone (ipc_permissions of ipc/ipc_sysctl.c).
    sysctl::apply(plan, proc, Whose::Ipc).at(|| "set sysctl".to_owned())
}
