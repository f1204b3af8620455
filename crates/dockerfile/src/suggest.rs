//! `did you mean`.

/// The candidate that is nearest to a word, if it is near enough to be a slip of the finger.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let most = match word.chars().count() {
        0..=2 => return None,
        3..=5 => 1,
        _ => 2,
    };
    let distance = |candidate: &str| edits(&word, &candidate.to_ascii_lowercase());
    let near =
        candidates.into_iter().map(|candidate| (distance(candidate), candidate)).filter(|(edits, _)| *edits <= most && *edits > 0);
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words; long ones are not compared.
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 2 || one.len() > 100 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let cost = usize::from(one[i - 1] != other[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let words = ["FROM", "COPY", "ENTRYPOINT", "STOPSIGNAL", "RUN"];
        assert_eq!(closest("FORM", words), Some("FROM"));
        assert_eq!(closest("entripoint", words), Some("ENTRYPOINT"));
        assert_eq!(closest("COPYY", words), Some("COPY"));
        assert_eq!(closest("BANANA", words), None);
        assert_eq!(closest("RU", words), None);
        assert_eq!(closest("RUN", words), None);
    }
}
