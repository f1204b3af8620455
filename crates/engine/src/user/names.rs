//! Names for containers that were given none.

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

/// A name that is not taken, out of random numbers. With three thousand containers a number has to help.
pub(crate) fn free(taken: impl Fn(&str) -> bool, mut draw: impl FnMut() -> u32) -> String {
    let pick = |words: &[&'static str], number: u32| words[number as usize % words.len()];
    let mut attempt = 0;
    loop {
        let mut name = format!("{}_{}", pick(&FIRST, draw()), pick(&SECOND, draw()));
        if attempt >= 10 {
            name = format!("{name}{}", draw());
        }
        if !taken(&name) {
            return name;
        }
        attempt += 1;
    }
}

/// Whether a container may be called so (docker: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`).
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && (2..=MAX).contains(&text.len())
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

/// Longer ones are no names: they are shown in tables and part of messages.
const MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_name_is_found_even_if_all_pairs_are_taken() {
        let mut number = 0;
        let mut draw = || {
            number += 1;
            number
        };
        let name = free(|_| false, &mut draw);
        assert!(is_name(&name), "{name}");
        let name = free(|name| !name.ends_with(|c: char| c.is_ascii_digit()), &mut draw);
        assert!(is_name(&name) && name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
        let mut words: Vec<_> = FIRST.iter().chain(&SECOND).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 96);
    }

    #[test]
    fn names() {
        for good in ["ab", "a_", "0.x-Y"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "_a", "a/b", "-a", "a b", "ä1", &"a".repeat(256)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
