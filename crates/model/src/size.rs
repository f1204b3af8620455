//! Sizes for people.

/// Bytes in powers of 1000 with so many digits at most, as docker shows them: as C's `%.*g` has it, no zeros at the end.
pub fn decimal(number: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let before = if value >= 99.95 {
        3
    } else if value >= 9.995 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_digits() {
        let shown = [0, 999, 1000, 3584, 12_340_000, u64::MAX].map(|bytes| decimal(bytes, 3));
        assert_eq!(shown, ["0B", "999B", "1kB", "3.58kB", "12.3MB", "18.4EB"]);
    }
}
