//! Patterns of the shell's kind, for `${v#pattern}` and its like: `*`, `?` and escapes, nothing else.

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Any,
    One,
    Char(char),
}

/// Reads a pattern.
pub(crate) fn parts(pattern: &str, escape: char) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            c if c == escape => Part::Char(chars.next().unwrap_or(escape)),
            c => Part::Char(c),
        });
    }
    parts
}

/// The lengths (in characters) of all beginnings of `text` that a pattern matches, shortest first. Bounded by pattern times text.
pub(crate) fn prefixes(parts: &[Part], text: &[char]) -> Vec<usize> {
    // reach[n]: the parts so far can match the first n characters.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for part in parts {
        let mut next = vec![false; text.len() + 1];
        match part {
            Part::Any => {
                let mut seen = false;
                for (to, from) in next.iter_mut().zip(&reach) {
                    seen |= from;
                    *to = seen;
                }
            }
            Part::One | Part::Char(_) => {
                for n in 0..text.len() {
                    let fits = matches!(part, Part::One) || *part == Part::Char(text[n]);
                    next[n + 1] = reach[n] && fits;
                }
            }
        }
        reach = next;
    }
    reach.iter().enumerate().filter(|(_, reached)| **reached).map(|(n, _)| n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(pattern: &str, text: &str) -> Vec<usize> {
        prefixes(&parts(pattern, '\\'), &text.chars().collect::<Vec<_>>())
    }

    #[test]
    fn beginnings() {
        assert_eq!(lengths("a*", "abc"), [1, 2, 3]);
        assert_eq!(lengths("*c", "abcc"), [3, 4]);
        assert_eq!(lengths("?b", "abc"), [2]);
        assert_eq!(lengths("\\*", "*a"), [1]);
        assert_eq!(lengths("", "a"), [0]);
        assert_eq!(lengths("x", "a"), Vec::<usize>::new());
        assert!(lengths(&"*a".repeat(500), &"a".repeat(5000)).len() > 1);
    }
}
