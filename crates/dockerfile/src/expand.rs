//! Variables: `$v`, `${v}` with their modifiers, quotes and escapes (the shell's words, as Dockerfiles have them).

use crate::{
    Problem,
    glob::{parts, prefixes},
};

/// Deepest `${a:-${b:-…}}`.
const DEEPEST: usize = 32;
/// Longest result of one expansion, in bytes: values can double with every instruction.
const LONGEST: usize = 1 << 20;

/// Who knows the values of variables.
pub trait Variables {
    /// The value of a variable; `None`: it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Expands words.
#[derive(Debug)]
pub struct Expander<'v, V: ?Sized> {
    variables: &'v V,
    escape: char,
}

impl<'v, V: Variables + ?Sized> Expander<'v, V> {
    /// With these variables, and the Dockerfile's escape character.
    pub fn new(variables: &'v V, escape: char) -> Self {
        Self { variables, escape }
    }

    /// One word: quotes go, escapes give what they escape, variables their values.
    ///
    /// # Errors
    /// An open quote, a bad substitution, a required variable that is not set, too long a result.
    pub fn word(&self, text: &str) -> Result<String, Problem> {
        self.run(text, Mode::Word)
    }

    /// A heredoc: variables are expanded, quotes are text.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn document(&self, text: &str) -> Result<String, Problem> {
        self.run(text, Mode::Document)
    }

    fn run(&self, text: &str, mode: Mode) -> Result<String, Problem> {
        let chars: Vec<char> = text.chars().collect();
        let mut scan = Scan { chars: &chars, at: 0, expander: self, depth: 0, patterns: false };
        let out = scan.until(None, mode)?;
        Ok(out)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Word,
    Document,
}

struct Scan<'c, 'e, 'v, V: ?Sized> {
    chars: &'c [char],
    at: usize,
    expander: &'e Expander<'v, V>,
    depth: usize,
    /// Escapes are left for who reads the result as a pattern.
    patterns: bool,
}

impl<V: Variables + ?Sized> Scan<'_, '_, '_, V> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Up to one of some characters (left there), or the end.
    fn until(&mut self, stop: Option<&[char]>, mode: Mode) -> Result<String, Problem> {
        let escape = self.expander.escape;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if stop.is_some_and(|stop| stop.contains(&c)) {
                break;
            }
            self.at += 1;
            match c {
                '\'' if mode == Mode::Word => self.single(&mut out)?,
                '"' if mode == Mode::Word => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                c if c == escape => self.escaped(&mut out, mode),
                c => out.push(c),
            }
            if out.len() > LONGEST {
                return Err(Problem::Substitution(format!("the result is longer than {LONGEST} bytes")));
            }
        }
        Ok(out)
    }

    fn escaped(&mut self, out: &mut String, mode: Mode) {
        let escape = self.expander.escape;
        match self.take() {
            // In a document only what would mean something can be escaped.
            Some(c) if mode == Mode::Document && c != '$' && c != escape => out.extend([escape, c]),
            Some(c) if self.patterns => out.extend([escape, c]),
            Some(c) => out.push(c),
            None => out.push(escape),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), Problem> {
        loop {
            match self.take().ok_or(Problem::Quote('\''))? {
                '\'' => return Ok(()),
                c => out.push(c),
            }
        }
    }

    fn double(&mut self, out: &mut String) -> Result<(), Problem> {
        let escape = self.expander.escape;
        loop {
            match self.take().ok_or(Problem::Quote('"'))? {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                c if c == escape => match self.take().ok_or(Problem::Quote('"'))? {
                    next if next == '"' || next == '$' || next == escape => out.push(next),
                    next => out.extend([escape, next]),
                },
                c => out.push(c),
            }
        }
    }

    /// After a `$`.
    fn dollar(&mut self) -> Result<String, Problem> {
        if self.peek() == Some('{') {
            self.at += 1;
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(Problem::Substitution(format!("nested more than {DEEPEST} deep")));
            }
            let value = self.braces();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() { Ok("$".to_owned()) } else { Ok(self.value(&name).unwrap_or_default()) }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.expander.variables.get(name)
    }

    /// A name of letters, digits and `_`, or one digit or special sign, as shells have them.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '@' | '*' | '#') => {
                name.push(c);
                self.at += 1;
            }
            _ => {}
        }
        name
    }

    /// After `${`.
    fn braces(&mut self) -> Result<String, Problem> {
        let start = self.at;
        let bad = |scan: &Self| {
            let text: String = scan.chars[start..].iter().take(40).collect();
            Problem::Substitution(format!("${{{text}"))
        };
        let name = self.name();
        if name.is_empty() {
            return Err(bad(self));
        }
        let sign = self.take().ok_or_else(|| bad(self))?;
        let value = self.value(&name);
        match sign {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let sign = self.take().ok_or_else(|| bad(self))?;
                let value = value.filter(|value| !value.is_empty());
                self.choice(&name, sign, value).ok_or_else(|| bad(self))?
            }
            '-' | '+' | '?' => self.choice(&name, sign, value).ok_or_else(|| bad(self))?,
            '#' | '%' => self.trim(sign, value.unwrap_or_default()),
            '/' => self.replace(value.unwrap_or_default()),
            _ => Err(bad(self)),
        }
    }

    /// `-`, `+`, `?`: what stands instead of the value. `None`: another sign.
    fn choice(&mut self, name: &str, sign: char, value: Option<String>) -> Option<Result<String, Problem>> {
        if !matches!(sign, '-' | '+' | '?') {
            return None;
        }
        let word = match self.operand() {
            Ok(word) => word,
            Err(problem) => return Some(Err(problem)),
        };
        Some(match (sign, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map_or_else(String::new, |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let message = if word.is_empty() { "is not allowed to be unset".to_owned() } else { word };
                Err(Problem::Required { name: name.to_owned(), message })
            }
        })
    }

    /// A word up to the closing brace, which is taken.
    fn operand(&mut self) -> Result<String, Problem> {
        let word = self.until(Some(&['}']), Mode::Word)?;
        self.take().ok_or_else(|| Problem::Substitution("no closing brace".to_owned()))?;
        Ok(word)
    }

    fn pattern(&mut self, stop: &[char]) -> Result<String, Problem> {
        self.patterns = true;
        let word = self.until(Some(stop), Mode::Word);
        self.patterns = false;
        word
    }

    /// `#`, `##`, `%`, `%%`.
    fn trim(&mut self, sign: char, value: String) -> Result<String, Problem> {
        let longest = self.peek() == Some(sign);
        if longest {
            self.at += 1;
        }
        let pattern = self.pattern(&['}'])?;
        self.take().ok_or_else(|| Problem::Substitution("no closing brace".to_owned()))?;
        let mut parts = parts(&pattern, self.expander.escape);
        let mut text: Vec<char> = value.chars().collect();
        // The end is the beginning of the reversed text.
        if sign == '%' {
            text.reverse();
            parts.reverse();
        }
        let found = prefixes(&parts, &text);
        let length = if longest { found.last() } else { found.first() };
        let mut rest = text.split_off(length.copied().unwrap_or(0));
        if sign == '%' {
            rest.reverse();
        }
        Ok(rest.into_iter().collect())
    }

    /// `/pattern/replacement`, `//pattern/replacement`.
    fn replace(&mut self, value: String) -> Result<String, Problem> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.pattern(&['/', '}'])?;
        let replacement = if self.peek() == Some('/') {
            self.at += 1;
            self.operand()?
        } else {
            self.at += 1;
            String::new()
        };
        let parts = parts(&pattern, self.expander.escape);
        let text: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at < text.len() {
            let found = if done { None } else { prefixes(&parts, &text[at..]).last().copied().filter(|length| *length > 0) };
            match found {
                Some(length) => {
                    out.push_str(&replacement);
                    at += length;
                    done = !all;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
            if out.len() > LONGEST {
                return Err(Problem::Substitution(format!("the result is longer than {LONGEST} bytes")));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(name: &str) -> Option<String> {
        match name {
            "v" => Some("value".into()),
            "path" => Some("/usr/local/bin/x.tar.gz".into()),
            "empty" => Some(String::new()),
            "star" => Some("a*b".into()),
            _ => None,
        }
    }

    fn word(text: &str) -> Result<String, String> {
        Expander::new(&known, '\\').word(text).map_err(|e| e.to_string())
    }

    #[test]
    fn values_and_defaults() {
        for (text, result) in [
            ("$v", "value"),
            ("${v}x$v-y", "valuexvalue-y"),
            ("$none|", "|"),
            ("${none:-d}${empty:-d}${empty-d}${none-d}", "ddd"),
            ("${v:+s}${empty:+s}${empty+s}${none+s}", "ss"),
            ("${v:?no}${empty?no}", "value"),
            ("${none:-${v:-x}}", "value"),
            ("${none:-\"a b\"}", "a b"),
            (r"\$v \\ \a", r"$v \ a"),
            ("'$v' \"$v\" \"\\$v \\n\"", r"$v value $v \n"),
            ("a$", "a$"),
            ("$1x", "x"),
        ] {
            assert_eq!(word(text).unwrap(), result, "{text}");
        }
    }

    #[test]
    fn parts_of_values() {
        for (text, result) in [
            ("${path#*/}", "usr/local/bin/x.tar.gz"),
            ("${path##*/}", "x.tar.gz"),
            ("${path%.*}", "/usr/local/bin/x.tar"),
            ("${path%%.*}", "/usr/local/bin/x"),
            ("${v#x}${v%x}", "valuevalue"),
            ("${v/a/o}${v//?/x}", "voluexxxxx"),
            ("${path//\\//-}", "-usr-local-bin-x.tar.gz"),
            ("${path/local}", "/usr//bin/x.tar.gz"),
            ("${star/\\*/+}${star#a\\*}", "a+bb"),
            ("${v/u*/}", "val"),
        ] {
            assert_eq!(word(text).unwrap(), result, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("${none:?is needed}", "none: is needed"),
            ("${none?}", "none: is not allowed to be unset"),
            ("'a", "unexpected end of statement while looking for matching '"),
            ("\"a", "unexpected end of statement while looking for matching \""),
            ("${v", "bad substitution: ${v"),
            ("${}", "bad substitution: ${}"),
            ("${v!x}", "bad substitution: ${v!x}"),
            ("${v:x}", "bad substitution: ${v:x}"),
            ("${v:-x", "bad substitution: no closing brace"),
        ] {
            assert_eq!(word(text).unwrap_err(), problem, "{text}");
        }
        assert!(word(&format!("{}{}", "${v:+".repeat(40), "}".repeat(40))).unwrap_err().contains("nested"));
    }

    #[test]
    fn documents_keep_their_quotes() {
        let out = Expander::new(&known, '\\').document("echo \"$v\" '${none:-d}' \\$v \\n \\\\\n").unwrap();
        assert_eq!(out, "echo \"value\" 'd' $v \\n \\\n");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\PC${}:'\"\\\\#%/?*+-]{0,60}") {
            drop(word(&text));
            drop(Expander::new(&known, '`').document(&text));
        }
    }
}
