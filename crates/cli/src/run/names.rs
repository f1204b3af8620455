//! Names for containers that were given none.

use std::{fs::File, io, io::Read};

const FIRST: [&str; 48] = [
    "amber", "autumn", "brave", "bright", "brisk", "calm", "clear", "copper", "coral", "crisp", "dapper", "eager", "early", "fair",
    "fleet", "frosty", "gentle", "golden", "grand", "happy", "hidden", "humble", "jolly", "keen", "kind", "lively", "lucky",
    "mellow", "merry", "misty", "noble", "patient", "plain", "proud", "quick", "quiet", "rapid", "ready", "sandy", "silver",
    "steady", "still", "sunny", "swift", "tidy", "vivid", "warm", "wise",
];
const SECOND: [&str; 48] = [
    "angler", "anchor", "barge", "beacon", "bream", "brook", "buoy", "canal", "carp", "catfish", "cove", "current", "dory", "eddy",
    "ferry", "float", "ford", "grayling", "gull", "harbor", "heron", "jetty", "kayak", "lagoon", "lake", "marsh", "mooring", "oar",
    "otter", "paddle", "perch", "pier", "pike", "pond", "rapids", "reed", "reel", "river", "rudder", "salmon", "skiff", "spinner",
    "spring", "stream", "sturgeon", "tide", "trout", "weir",
];

/// A name that is not taken. With three thousand containers a number has to help.
pub(super) fn free(taken: impl Fn(&str) -> bool) -> io::Result<String> {
    let mut random = File::open("/dev/urandom")?;
    let mut draw = move || -> io::Result<u32> {
        let mut bytes = [0; 4];
        random.read_exact(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    };
    let pick = |words: &[&'static str], number: u32| words[number as usize % words.len()];
    for attempt in 0.. {
        let mut name = format!("{}-{}", pick(&FIRST, draw()?), pick(&SECOND, draw()?));
        if attempt >= 10 {
            name = format!("{name}-{}", draw()?);
        }
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(io::Error::other("all names are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_name_is_found_even_if_all_pairs_are_taken() {
        let name = free(|_| false).unwrap();
        assert_eq!(name.matches('-').count(), 1, "{name}");
        let name = free(|name| name.matches('-').count() == 1).unwrap();
        assert_eq!(name.matches('-').count(), 2, "{name}");
        let mut words: Vec<_> = FIRST.iter().chain(&SECOND).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 96);
    }
}
