//! What criu's images may say. They are hostile, and criu does what they say as root: so what they may be is a list, what they
//! say of namespaces and mounts has to be what our own captures say, and the filter of every thread begins with the one that
//! the container is to have. (What comes out of it is asked of the kernel afterwards; this is what criu gets to see at all.)
//!
//! Formats: `images/*.proto` of criu; each file is a magic number or two and then messages, each after its length.

use super::wire::{self, Damaged};

/// In front of every image but the inventory (`magic.h`).
const COMMON: u32 = 0x5456_4319;
/// Kinds that come once per process, memory area, file or namespace: `KIND-NUMBER.img`.
const NUMBERED: [&str; 11] =
    ["core", "ids", "mm", "pagemap", "pages", "fdinfo", "fs", "mountpoints", "ghost-file", "pagemap-shmem", "posix-timers"];
/// Kinds that come once.
const SINGLE: [&str; 9] =
    ["files", "inventory", "pstree", "seccomp", "pipes-data", "fifo-data", "sk-queues", "remap-fpath", "filelocks"];
/// Kinds that criu writes and a restore does without: cgroups and the time namespace are the new container's.
const LEFT_OUT: [&str; 2] = ["cgroup", "timens"];
/// Processes with all their threads at most.
const THREADS: usize = 32_768;
/// Filters that a thread may have on top of each other; the kernel's limit is by instructions, and lower.
const FILTERS: usize = 1024;

/// Why images are not restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image {image:?}: {why}")]
pub struct Refused {
    /// The file.
    pub image: String,
    /// Why.
    pub why: String,
}

pub(super) fn refuse<T>(image: &str, why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { image: image.chars().take(80).collect(), why: why.into() })
}

/// What is done with a file of a checkpoint directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// criu gets it.
    Restored,
    /// It is of no use here.
    LeftOut,
}

/// What a file is for, by its name.
///
/// # Errors
/// It is no image that containers of ours have.
pub fn usage(name: &str) -> Result<Use, Refused> {
    let Some(stem) = name.strip_suffix(".img") else {
        return if name == "stats-dump" { Ok(Use::LeftOut) } else { refuse(name, "is no image") };
    };
    let (kind, number) = match stem.rsplit_once('-') {
        Some((kind, number)) if !number.is_empty() && number.len() <= 10 && number.bytes().all(|c| c.is_ascii_digit()) => {
            (kind, true)
        }
        _ => (stem, false),
    };
    match (kind, number) {
        (kind, true) if NUMBERED.contains(&kind) => Ok(Use::Restored),
        (kind, false) if SINGLE.contains(&kind) => Ok(Use::Restored),
        (kind, _) if LEFT_OUT.contains(&kind) => Ok(Use::LeftOut),
        _ => refuse(name, "is of a kind that containers here do not have"),
    }
}

/// Looks through images. `names`: all that criu will get. `read`: their content, bounded. `filter`: the seccomp program of
/// the container that they are restored as.
///
/// # Errors
/// What must not be.
pub fn check(names: &[String], read: impl Fn(&str) -> Result<Vec<u8>, Refused>, filter: Option<&[u8]>) -> Result<(), Refused> {
    let of = |kind: &str| {
        let prefix = format!("{kind}-");
        names
            .iter()
            .filter(move |name| name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
    };
    let inventory = one_message("inventory.img", &read("inventory.img")?)?;
    let home = check_inventory(&inventory)?;
    let mut tasks = None;
    for name in of("ids") {
        check_namespaces(name, &home, &mut tasks, &one_message(name, &read(name)?)?)?;
    }
    let cores: Vec<_> = of("core").collect();
    if cores.is_empty() || cores.len() > THREADS || of("ids").next().is_none() {
        return refuse("core", "there are no processes, or too many");
    }
    let filters = match names.iter().any(|name| name == "seccomp.img") {
        true => Filters::parse(&read("seccomp.img")?)?,
        false => Filters(Vec::new()),
    };
    for name in cores {
        let core = one_message(name, &read(name)?)?;
        if let Some(ids) = wire::one(&core, 4).or_else(damaged(name))? {
            check_namespaces(name, &home, &mut tasks, ids)?;
        }
        filters.check(name, &core, filter)?;
    }
    let mut tables = of("mountpoints");
    match (tables.next(), tables.next()) {
        (Some(name), None) => check_mounts(name, &read(name)?)?,
        _ => return refuse("mountpoints", "there is not one table of mounts"),
    }
    for name in ["files.img", "remap-fpath.img"].into_iter().filter(|name| names.iter().any(|there| there == name)) {
        // The kernel never says a path like that: it is for leaving a directory.
        if read(name)?.windows(3).any(|window| window == b"../") {
            return refuse(name, "a path has a .. in it");
        }
    }
    Ok(())
}

pub(super) fn damaged<T>(image: &str) -> impl FnOnce(Damaged) -> Result<T, Refused> {
    move |_| refuse(image, "is damaged")
}

/// The messages of an image.
pub(super) fn messages<'b>(image: &str, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, Refused> {
    let word = |bytes: &[u8]| bytes.first_chunk::<4>().map(|word| u32::from_le_bytes(*word));
    let header = if word(bytes) == Some(COMMON) { 8 } else { 4 };
    let Some(mut rest) = bytes.get(header..) else { return refuse(image, "is cut off") };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = word(rest).and_then(|length| usize::try_from(length).ok());
        let Some((message, after)) = length.and_then(|length| rest[4..].split_at_checked(length)) else {
            return refuse(image, "is cut off");
        };
        found.push(message);
        rest = after;
    }
    Ok(found)
}

fn one_message(image: &str, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    match messages(image, bytes)?[..] {
        [message] => Ok(message.to_vec()),
        _ => refuse(image, "has not one message"),
    }
}

/// Numbers of namespaces: of criu itself when it captured, or of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Namespaces {
    pid: u64,
    net: u64,
    ipc: u64,
    uts: u64,
    mnt: u64,
    user: u64,
    time: u64,
}

impl Namespaces {
    /// `task_kobj_ids_entry`
    fn parse(image: &str, ids: &[u8]) -> Result<Self, Refused> {
        let number = |field| match wire::number(ids, field) {
            Ok(Some(number)) if number != 0 => Ok(number),
            Ok(_) => refuse(image, "does not say in which namespaces it is"),
            Err(Damaged) => refuse(image, "is damaged"),
        };
        let time = wire::number(ids, 12).or_else(damaged(image))?.unwrap_or(0);
        Ok(Self { pid: number(5)?, net: number(6)?, ipc: number(7)?, uts: number(8)?, mnt: number(9)?, user: number(10)?, time })
    }
}

fn check_inventory(inventory: &[u8]) -> Result<Namespaces, Refused> {
    let image = "inventory.img";
    if wire::number(inventory, 6).or_else(damaged(image))?.unwrap_or(0) != 0 {
        return refuse(image, "the processes were confined by a Linux security module, which is not restored");
    }
    let plugins = wire::one(inventory, 12).or_else(damaged(image))?;
    if plugins.is_some_and(|plugins| !plugins.is_empty()) {
        return refuse(image, "plugins of criu took part");
    }
    let Some(home) = wire::one(inventory, 3).or_else(damaged(image))? else { return refuse(image, "does not say who captured") };
    Namespaces::parse(image, home)
}

/// The container's own namespaces are all processes', and the rest is what criu was in too: so criu makes those and only those.
fn check_namespaces(image: &str, home: &Namespaces, tasks: &mut Option<Namespaces>, ids: &[u8]) -> Result<(), Refused> {
    let own = Namespaces::parse(image, ids)?;
    if own.pid == home.pid || own.mnt == home.mnt {
        return refuse(image, "a process was in the host's namespaces");
    }
    let shared = |n: &Namespaces| (n.net, n.ipc, n.uts, n.user, n.time);
    if shared(&own) != shared(home) {
        return refuse(image, "a process was in namespaces of its own besides the container's");
    }
    match tasks.get_or_insert(own) {
        first if *first == own => Ok(()),
        _ => refuse(image, "the processes were in different namespaces"),
    }
}

/// `mnt_entry`: the root, procfs, and for the rest that somebody else provides it.
fn check_mounts(image: &str, bytes: &[u8]) -> Result<(), Refused> {
    const PROC: u64 = 1;
    for mount in messages(image, bytes)? {
        let (kind, place) = (wire::number(mount, 1).or_else(damaged(image))?, wire::one(mount, 7).or_else(damaged(image))?);
        let provided = wire::one(mount, 18).or_else(damaged(image))?;
        let plugin = wire::number(mount, 12).or_else(damaged(image))?.unwrap_or(0) != 0;
        match (place, provided) {
            (Some(place), Some(key)) if place == key && !plugin => {}
            (Some(b"/"), None) if !plugin => {}
            (Some(place), None) if kind == Some(PROC) && !plugin && (place == b"/proc" || place.starts_with(b"/proc/")) => {}
            (place, _) => {
                let place = String::from_utf8_lossy(place.unwrap_or_default()).chars().take(200).collect::<String>();
                return refuse(image, format!("a mount on {place:?} is not one that the container gets"));
            }
        }
    }
    Ok(())
}

/// `seccomp_entry`: programs, each with the number of the one below it.
struct Filters(Vec<(Vec<u8>, Option<u64>)>);

impl Filters {
    fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let image = "seccomp.img";
        let entry = one_message(image, bytes)?;
        let mut filters = Vec::new();
        for filter in wire::all(&entry, 1).or_else(damaged(image))? {
            let Some(program) = wire::one(filter, 1).or_else(damaged(image))? else { return refuse(image, "is damaged") };
            filters.push((program.to_vec(), wire::number(filter, 2).or_else(damaged(image))?));
        }
        Ok(Self(filters))
    }

    /// That the first filter of a thread is the container's.
    fn check(&self, image: &str, core: &[u8], wanted: Option<&[u8]>) -> Result<(), Refused> {
        const FILTER: u64 = 2;
        let Some(wanted) = wanted else { return Ok(()) };
        let Some(thread) = wire::one(core, 5).or_else(damaged(image))? else { return refuse(image, "has no thread") };
        let (mode, last) = (wire::number(thread, 11).or_else(damaged(image))?, wire::number(thread, 12).or_else(damaged(image))?);
        let mut at = match (mode, last) {
            (Some(FILTER), Some(last)) => last,
            _ => return refuse(image, "a thread has no seccomp filter, and the container has"),
        };
        for _ in 0..FILTERS {
            let Some((program, below)) = usize::try_from(at).ok().and_then(|at| self.0.get(at)) else {
                return refuse(image, "a thread has a seccomp filter that is not there");
            };
            match below {
                Some(below) => at = *below,
                None if program == wanted => return Ok(()),
                None => return refuse(image, "a thread has another seccomp filter than the container"),
            }
        }
        refuse(image, "a thread has too many seccomp filters")
    }
}

/// Looks through images that are pieces of `data`: for fuzzing.
pub fn fuzz(data: &[u8]) {
    let names = ["inventory.img", "ids-1.img", "core-1.img", "seccomp.img", "mountpoints-1.img", "files.img"].map(str::to_owned);
    let size = data.len() / names.len();
    let read = |name: &str| {
        let at = names.iter().position(|known| known == name).unwrap_or(0);
        Ok(data[at * size..(at + 1) * size].to_vec())
    };
    let _ = check(&names, read, Some(&[6, 0, 0, 0, 0, 0, 0xff, 0x7f]));
    let names = ["pagemap-1.img", "pages-1.img"].map(str::to_owned);
    let _ = super::memory::check(&names, |_| Ok(data.to_vec()), |_| Ok(4096));
    let _ = usage(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const FILTER: [u8; 8] = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    fn image(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = [COMMON.to_le_bytes(), [1, 2, 3, 4]].concat();
        for message in messages {
            out.extend((message.len() as u32).to_le_bytes());
            out.extend(message);
        }
        out
    }

    /// vm, files, fs and signal handlers do not matter here.
    fn ids(pid: u64, mnt: u64, net: u64) -> Vec<u8> {
        [number(5, pid), number(6, net), number(7, 3), number(8, 4), number(9, mnt), number(10, 7), number(12, 5)].concat()
    }

    fn mount(kind: u64, place: &str, key: Option<&str>) -> Vec<u8> {
        let key = key.map(|key| bytes(18, key.as_bytes())).unwrap_or_default();
        [number(1, kind), bytes(6, b"/"), bytes(7, place.as_bytes()), key].concat()
    }

    fn core(mode: u64, filter: u64) -> Vec<u8> {
        bytes(5, &[number(11, mode), number(12, filter)].concat())
    }

    /// What a capture of ours looks like.
    fn good() -> BTreeMap<String, Vec<u8>> {
        let mounts = [mount(17, "/", None), mount(1, "/proc", None), mount(1, "/proc/sys", None), mount(5, "/dev", Some("/dev"))];
        let filters = [bytes(1, &bytes(1, &FILTER)), bytes(1, &[bytes(1, b"another "), number(2, 0)].concat())].concat();
        [
            ("inventory.img", image(&[[number(1, 2), bytes(3, &ids(1, 6, 2)), number(6, 0)].concat()])),
            ("ids-1.img", image(&[ids(9, 10, 2)])),
            ("core-1.img", image(&[core(2, 0)])),
            ("core-2.img", image(&[core(2, 1)])),
            ("seccomp.img", image(&[filters])),
            ("mountpoints-10.img", image(&mounts)),
            ("files.img", image(&[bytes(3, b"/bin/sh")])),
        ]
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
    }

    fn verdict(images: &BTreeMap<String, Vec<u8>>) -> Result<(), Refused> {
        let names: Vec<String> = images.keys().cloned().collect();
        check(&names, |name| images.get(name).cloned().map_or_else(|| refuse(name, "missing"), Ok), Some(&FILTER))
    }

    #[test]
    fn what_we_capture_is_accepted() {
        assert_eq!(verdict(&good()), Ok(()));
    }

    #[test]
    fn cr_05_images_that_want_more_than_a_container_are_refused() {
        let lsm = [number(1, 2), bytes(3, &ids(1, 6, 2)), number(6, 2)].concat();
        let plugin = [bytes(3, &ids(1, 6, 2)), bytes(12, &bytes(12, b"cuda"))].concat();
        let lone = bytes(1, &[bytes(1, &FILTER), number(2, 0)].concat());
        for (name, content, words) in [
            ("inventory.img", image(&[lsm]), "security module"),
            ("inventory.img", image(&[plugin]), "plugins"),
            ("inventory.img", image(&[number(1, 2)]), "who captured"),
            ("inventory.img", vec![1], "cut off"),
            ("ids-1.img", image(&[ids(1, 10, 2)]), "host's namespaces"),
            ("ids-1.img", image(&[ids(9, 6, 2)]), "host's namespaces"),
            ("ids-1.img", image(&[ids(9, 10, 99)]), "namespaces of its own"),
            ("ids-1.img", image(&[ids(0, 10, 2)]), "does not say"),
            ("ids-2.img", image(&[ids(9, 11, 2)]), "different namespaces"),
            ("core-3.img", image(&[core(0, 0)]), "no seccomp filter"),
            ("core-3.img", image(&[core(2, 7)]), "not there"),
            ("core-3.img", image(&[[bytes(4, &ids(1, 6, 2)), core(2, 0)].concat()]), "host's namespaces"),
            ("core-3.img", image(&[vec![0xff; 20]]), "damaged"),
            ("seccomp.img", image(&[bytes(1, &bytes(1, b"allow it"))]), "another seccomp filter"),
            ("seccomp.img", image(&[lone]), "too many seccomp filters"),
            ("mountpoints-10.img", image(&[mount(0, "/", None), mount(0, "/host", None)]), "\"/host\""),
            ("mountpoints-10.img", image(&[mount(1, "/x", None)]), "\"/x\""),
            ("mountpoints-10.img", image(&[mount(5, "/dev", Some("/other"))]), "\"/dev\""),
            ("mountpoints-10.img", image(&[[mount(1, "/proc", None), number(12, 1)].concat()]), "\"/proc\""),
            ("mountpoints-11.img", image(&[]), "not one table"),
            ("files.img", image(&[bytes(3, b"/a/../../etc/shadow")]), ".."),
        ] {
            let mut images = good();
            images.insert(name.to_owned(), content);
            let refused = verdict(&images).expect_err(words);
            assert!(refused.to_string().contains(words), "{refused}");
        }
        for missing in ["inventory.img", "ids-1.img", "mountpoints-10.img", "seccomp.img"] {
            let mut images = good();
            images.remove(missing);
            assert!(verdict(&images).is_err(), "{missing}");
        }
    }

    #[test]
    fn cr_05_only_known_kinds_of_files() {
        for name in ["core-1.img", "pages-12.img", "files.img", "ghost-file-5.img", "pagemap-shmem-7.img"] {
            assert_eq!(usage(name), Ok(Use::Restored), "{name}");
        }
        for name in ["cgroup.img", "timens-0.img", "stats-dump"] {
            assert_eq!(usage(name), Ok(Use::LeftOut), "{name}");
        }
        for name in
            ["tmpfs-dev-41.tar.gz.img", "netns-10.img", "iptables-10.img", "core-.img", "core-1", "core--1.img", "x", "", ".img"]
        {
            assert!(usage(name).is_err(), "{name}");
        }
        for name in
            ["core-99999999999.img", "../core-1.img", "autofs-1.img", "apparmor.img", "userns-1.img", "files-1.img", "core.img"]
        {
            assert!(usage(name).is_err(), "{name}");
        }
    }

    #[test]
    fn rubbish_is_no_panic() {
        for seed in 0..2000_u32 {
            let mut state = seed;
            let data: Vec<u8> = (0..seed % 600)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            fuzz(&data);
        }
    }
}
