//! Which devices a group may use: nothing but what is listed (R21).

use super::{Group, Hierarchy, device_program, files};
use crate::Error;

/// Kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Both kinds.
    Any,
}

/// What may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// open(2) for reading.
    pub read: bool,
    /// open(2) for writing.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
}

/// One allowed device, or all with a number left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind.
    pub kind: DeviceKind,
    /// Major number; `None`: any.
    pub major: Option<u32>,
    /// Minor number; `None`: any.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: Access,
}

impl DeviceRule {
    /// Every device: for privileged containers.
    pub const ALL: Self = Self { kind: DeviceKind::Any, major: None, minor: None, access: Access::ALL };

    /// What every container has: null, zero, full, random, urandom, tty, ptmx and pseudo terminals.
    pub fn standard() -> Vec<Self> {
        let rule = |major, minor| Self { kind: DeviceKind::Character, major: Some(major), minor, access: Access::ALL };
        let memory = [3, 5, 7, 8, 9].map(|minor| rule(1, Some(minor)));
        [memory.as_slice(), &[rule(5, Some(0)), rule(5, Some(2)), rule(136, None)]].concat()
    }

    /// The words of v1's `devices.allow`.
    fn line(&self) -> String {
        let kind = match self.kind {
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
            DeviceKind::Any => 'a',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let mut line = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        line.extend(
            [(self.access.read, 'r'), (self.access.write, 'w'), (self.access.mknod, 'm')].iter().filter(|a| a.0).map(|a| a.1),
        );
        line
    }
}

impl Group {
    /// Allows the listed devices and nothing else; what was allowed before does not count any more.
    ///
    /// # Errors
    /// EPERM: a group above does not allow one of them. Missing: no device controller and no BPF.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> Result<(), Error> {
        match self.all.with("devices") {
            Some(Hierarchy::V1 { .. }) => self.allow_v1(rules),
            Some(hierarchy @ Hierarchy::V2 { .. }) => device_program::attach(&hierarchy.at(&self.path), rules),
            None => Err(Error::Missing("cgroup controller for devices".to_owned())),
        }
    }

    fn allow_v1(&self, rules: &[DeviceRule]) -> Result<(), Error> {
        let Some(directory) = self.directory("devices") else {
            return Err(Error::Missing("cgroup controller for devices".to_owned()));
        };
        files::write(&directory.join("devices.deny"), "a")?;
        let allow = directory.join("devices.allow");
        for rule in rules {
            let kinds: &[DeviceKind] = match rule.kind {
                // 'a' stands for everything, whatever numbers follow it.
                DeviceKind::Any if *rule == DeviceRule::ALL => &[DeviceKind::Any],
                DeviceKind::Any => &[DeviceKind::Character, DeviceKind::Block],
                DeviceKind::Character => &[DeviceKind::Character],
                DeviceKind::Block => &[DeviceKind::Block],
            };
            for kind in kinds {
                files::write(&allow, &DeviceRule { kind: *kind, ..*rule }.line())?;
            }
        }
        Ok(())
    }
}
