//! SELinux labels: the policy's own for containers, with a pair of categories for each pod, so that pods are kept apart
//! although their types are the same (MCS).

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    sync::{Mutex, PoisonError},
};

use model::{PodId, container::SelinuxSpec};

use super::{Error, is_said, label::Label};

/// Categories that policies have.
const CATEGORIES: u16 = 1024;
const FS: &str = "/sys/fs/selinux";
const CONFIG: &str = "/etc/selinux/config";
/// Of processes that nothing confines, in the policies that know containers.
const UNCONFINED: &str = "spc_t";

/// SELinux on a node that has a policy loaded.
#[derive(Debug)]
pub(super) struct Selinux {
    process: Label,
    files: Label,
    /// Whether the policy knows these labels.
    known: bool,
    taken: Mutex<HashMap<PodId, (u16, u16)>>,
}

impl Selinux {
    /// `None`: SELinux is off. selinuxfs is mounted once there is a policy.
    pub(super) fn detect() -> Option<Self> {
        if !fs::exists(format!("{FS}/enforce")).unwrap_or(false) {
            return None;
        }
        let contexts = policy().and_then(|policy| fs::read_to_string(format!("/etc/selinux/{policy}/contexts/lxc_contexts")).ok());
        let contexts = contexts.unwrap_or_default();
        let label = |key: &str, kind: &str, role: &str| {
            value(&contexts, key).and_then(Label::parse).unwrap_or_else(|| Label {
                user: "system_u".to_owned(),
                role: role.to_owned(),
                kind: kind.to_owned(),
                level: "s0".to_owned(),
            })
        };
        let (process, files) = (label("process", "container_t", "system_r"), label("file", "container_file_t", "object_r"));
        let known = check(&process).and_then(|_| check(&files)).is_ok();
        Some(Self { process, files, known, taken: Mutex::default() })
    }

    pub(super) fn warning(&self) -> Option<String> {
        let why = "containers have no SELinux labels: the node's policy has none for them (package container-selinux)";
        (!self.known).then(|| format!("{why}: {}", self.process))
    }

    /// Labels of a container's processes and of its files; `None`: the policy has none for containers, and nobody said one.
    pub(super) fn labels(
        &self,
        pod: Option<&SelinuxSpec>,
        container: Option<&SelinuxSpec>,
        level: Option<&str>,
        privileged: bool,
    ) -> Result<Option<(String, String)>, Error> {
        let said = is_said(pod) || is_said(container);
        if !self.known && !said {
            return Ok(None);
        }
        let level = level.unwrap_or("s0").to_owned();
        let only = |label: Option<&SelinuxSpec>| SelinuxSpec {
            kind: String::new(),
            role: String::new(),
            ..label.cloned().unwrap_or_default()
        };
        let files = Label { level: level.clone(), ..self.files.clone() }.with(Some(&only(pod))).with(Some(&only(container)));
        let mut process = Label { level, ..self.process.clone() };
        if privileged {
            process = Label { kind: UNCONFINED.to_owned(), level: "s0".to_owned(), ..process };
        }
        let process = process.with(pod).with(container);
        Ok(Some((check(&process)?, check(&files)?)))
    }

    /// A level that no other pod has.
    pub(super) fn allot(&self, pod: PodId) -> String {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (0u32..).map(|round| pair(pod, round)).find(|pair| !taken.values().any(|other| other == pair));
        let pair = pair.expect("there are half a million pairs, and never as many pods");
        taken.insert(pod, pair);
        format!("s0:c{},c{}", pair.0, pair.1)
    }

    pub(super) fn keep(&self, pod: PodId, level: &str) {
        let pair = level.strip_prefix("s0:c").and_then(|pair| pair.split_once(",c"));
        if let Some((Ok(low), Ok(high))) = pair.map(|(low, high)| (low.parse(), high.parse())) {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(pod, (low, high));
        }
    }

    pub(super) fn release(&self, pod: PodId) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod);
    }
}

/// Two different categories, the lower one first. Ids are random, and so is this.
fn pair(pod: PodId, round: u32) -> (u16, u16) {
    let bytes = pod.as_bytes();
    let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).wrapping_add(round);
    let all = u32::from(CATEGORIES);
    let (first, second) = (number % all, number / all % (all - 1));
    let second = if second >= first { second + 1 } else { second };
    let category = |number: u32| u16::try_from(number).expect("is less than 1024");
    (category(first.min(second)), category(first.max(second)))
}

/// The kernel's word on whether the policy knows a label, and how it is written: types have aliases (selinuxfs).
fn check(label: &Label) -> Result<String, Error> {
    let text = label.to_string();
    let mut written = String::new();
    let file = fs::OpenOptions::new().read(true).write(true).open(format!("{FS}/context"));
    let asked = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.read_to_string(&mut written)));
    asked.map_err(|_| Error::Label(text))?;
    Ok(written.trim_end_matches('\0').to_owned())
}

/// The policy's name: a directory of /etc/selinux.
fn policy() -> Option<String> {
    let text = fs::read_to_string(CONFIG).ok()?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="))?.trim().to_owned();
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// `key = "value"`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.trim().strip_prefix(key)?.trim().strip_prefix('=')?.trim().trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selinux() -> Selinux {
        let label = |text| Label::parse(text).unwrap();
        Selinux {
            process: label("system_u:system_r:container_t:s0"),
            files: label("system_u:object_r:container_file_t:s0"),
            known: true,
            taken: Mutex::default(),
        }
    }

    #[test]
    fn every_pod_gets_categories_of_its_own() {
        let selinux = selinux();
        let (first, twin) = (PodId::from_bytes([9; 32]), {
            let mut bytes = [9; 32];
            bytes[31] = 1;
            PodId::from_bytes(bytes)
        });
        let level = selinux.allot(first);
        let other = selinux.allot(twin);
        assert_ne!(level, other, "the same start of an id, and yet another pair");
        selinux.release(first);
        selinux.release(twin);
        selinux.keep(first, &other);
        assert_eq!(selinux.allot(twin), level, "the pair that was kept is not given again");
        for round in 0..5000 {
            let (low, high) = pair(first, round * 77_777);
            assert!(low < high && high < CATEGORIES);
        }
    }

    #[test]
    fn contexts_are_read_as_libselinux_does() {
        let text =
            "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";
        assert_eq!(value(text, "file"), Some("system_u:object_r:container_file_t:s0"));
        assert_eq!(value(text, "process"), Some("system_u:system_r:container_t:s0"));
        assert_eq!(value(text, "ro_file"), None);
    }
}
