//! Points at which the tests make the disk fail or the process "die": every step that changes durable state passes one.

#[cfg(not(test))]
pub(crate) fn reach(_point: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use planned::{Mode, reach, with};

#[cfg(test)]
mod planned {
    use std::{cell::RefCell, io};

    /// What happens at the chosen point.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum Mode {
        /// That step fails with EIO, the later ones work: an error.
        Fail,
        /// That step and all later ones fail: as good as dead.
        Die,
        /// That step and all later ones that write fail with ENOSPC, removals work: a full disk.
        Full,
    }

    #[derive(Debug)]
    struct Plan {
        left: u32,
        mode: Mode,
        hit: Option<&'static str>,
    }

    thread_local! {
        static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    }

    /// What became of a run with a plan.
    #[derive(Debug)]
    pub(crate) struct Outcome<T> {
        pub(crate) value: T,
        /// The point that was hit; `None`: the run has fewer steps.
        pub(crate) hit: Option<&'static str>,
    }

    /// Runs `work` with the fault at its step number `step` on this thread.
    pub(crate) fn with<T>(step: u32, mode: Mode, work: impl FnOnce() -> T) -> Outcome<T> {
        PLAN.with(|plan| *plan.borrow_mut() = Some(Plan { left: step, mode, hit: None }));
        let value = work();
        let hit = PLAN.with(|plan| plan.borrow_mut().take()).and_then(|plan| plan.hit);
        Outcome { value, hit }
    }

    pub(crate) fn reach(point: &'static str) -> io::Result<()> {
        PLAN.with(|plan| {
            let mut plan = plan.borrow_mut();
            let Some(plan) = plan.as_mut() else { return Ok(()) };
            let removal = matches!(point, "unlink" | "remove tree");
            if plan.hit.is_some() {
                return match plan.mode {
                    Mode::Fail => Ok(()),
                    Mode::Die => Err(io::Error::from_raw_os_error(5)),
                    Mode::Full if removal => Ok(()),
                    Mode::Full => Err(io::Error::from_raw_os_error(28)),
                };
            }
            if plan.mode == Mode::Full && removal {
                return Ok(());
            }
            if plan.left == 0 {
                plan.hit = Some(point);
                return Err(io::Error::from_raw_os_error(if plan.mode == Mode::Full { 28 } else { 5 }));
            }
            plan.left -= 1;
            Ok(())
        })
    }
}
