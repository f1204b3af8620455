//! Words of a line: by blanks outside of quotes.

use crate::Problem;

/// The words of a text, quotes and escapes left in them.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        // Nothing takes a meaning away between single quotes.
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words outside of quotes, roughly: for finding heredocs, whose own quotes are at the end of a word.
pub(crate) fn bare(text: &str) -> impl Iterator<Item = &str> {
    let mut quote: Option<char> = None;
    text.split_whitespace().filter(move |word| {
        let starts_inside = quote.is_some();
        for c in word.chars() {
            match quote {
                None if c == '"' || c == '\'' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ => {}
            }
        }
        !starts_inside && quote.is_none()
    })
}

/// A JSON array of strings, if the text is one.
pub(crate) fn json(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str::<Vec<String>>(text).ok()
}

/// `KEY=VALUE …`, or the old form `KEY VALUE`, whose value is the rest of the line. Quotes and escapes stay.
pub(crate) fn pairs(text: &str, escape: char, instruction: &'static str) -> Result<Vec<(String, String)>, Problem> {
    let wrong = |why: String| Problem::Arguments { instruction, why };
    let words = split(text, escape);
    let first = words.first().ok_or_else(|| wrong("must have at least one argument".to_owned()))?;
    if !first.contains('=') {
        let rest = text.trim_start()[first.len()..].trim();
        if rest.is_empty() {
            return Err(wrong("must have two arguments".to_owned()));
        }
        return Ok(vec![(first.clone(), rest.to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(wrong("names can not be blank".to_owned())),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(wrong(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))),
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_blanks_outside_of_quotes() {
        assert_eq!(split(r#"a="b c" d\ e 'f \' g"#, '\\'), [r#"a="b c""#, r"d\ e", r"'f \'", "g"]);
        assert_eq!(split("  ", '\\'), Vec::<String>::new());
        assert_eq!(split("a` b", '`'), ["a` b"]);
        assert_eq!(split("a\\", '\\'), ["a\\"]);
    }

    #[test]
    fn json_arrays_have_double_quotes() {
        assert_eq!(json(r#" ["a", "b c"] "#), Some(vec!["a".to_owned(), "b c".to_owned()]));
        for none in ["['a']", "[a]", "[1]", "a", "[\"a\"] x", "[\"a\",]"] {
            assert_eq!(json(none), None, "{none}");
        }
    }

    #[test]
    fn pairs_of_both_forms() {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        assert_eq!(pairs("a=1 b=\"x y\"", '\\', "ENV").unwrap(), owned(&[("a", "1"), ("b", "\"x y\"")]));
        assert_eq!(pairs("a  the rest = of it ", '\\', "ENV").unwrap(), owned(&[("a", "the rest = of it")]));
        for bad in ["", "a", "a=1 b", "=1"] {
            assert!(pairs(bad, '\\', "ENV").is_err(), "{bad}");
        }
    }
}
