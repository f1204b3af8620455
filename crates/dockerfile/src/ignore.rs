//! `.dockerignore`: which paths of a context are not sent (docker's patternmatcher: the last line that matches decides).

/// Bytes of a `.dockerignore`.
const LARGEST: usize = 1 << 20;
/// Lines with a pattern.
const MOST: usize = 10_000;

/// What is wrong with a `.dockerignore`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` with nothing behind it.
    #[error("line {0}: illegal exclusion pattern: \"!\"")]
    Exclusion(usize),
    /// A pattern that is none.
    #[error("line {line}: pattern {pattern:?}: {why}")]
    Pattern {
        /// Its line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Larger than one can be.
    #[error("more than {MOST} patterns, or larger than {LARGEST} bytes")]
    TooLarge,
    /// Bytes that are not text.
    #[error("not UTF-8")]
    Encoding,
}

/// A pattern, taken apart at its slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    keep: bool,
    parts: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of components.
    Deep,
    One(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
    Class { not: bool, ranges: Vec<(char, char)> },
}

/// The patterns of a `.dockerignore`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

impl Ignore {
    /// Reads one.
    ///
    /// # Errors
    /// See [`IgnoreError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IgnoreError> {
        if bytes.len() > LARGEST {
            return Err(IgnoreError::TooLarge);
        }
        let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).map_err(|_| IgnoreError::Encoding)?;
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            // A comment only where it begins the line: ` #x` is a pattern.
            let line = if line.starts_with('#') { "" } else { line.trim() };
            if let Some(rule) = rule(line, number + 1)? {
                rules.push(rule);
            }
            if rules.len() > MOST {
                return Err(IgnoreError::TooLarge);
            }
        }
        Ok(Self { rules })
    }

    /// Patterns that are given one by one, as `COPY --exclude` has them.
    ///
    /// # Errors
    /// See [`IgnoreError`]; the line is the pattern's number.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        let rules = patterns.into_iter().enumerate().map(|(n, pattern)| rule(pattern.trim(), n + 1));
        Ok(Self { rules: rules.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect() })
    }

    /// Whether anything is left out at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something that one pattern leaves out is taken in again by another.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep)
    }

    /// Whether a pattern leaves out whatever there is.
    pub fn excludes_everything(&self) -> bool {
        let any = |segment: &Segment| match segment {
            Segment::Deep => true,
            Segment::One(tokens) => matches!(tokens[..], [Token::Any]),
        };
        let all = |parts: &[Segment]| matches!(parts, [one] | [Segment::Deep, one] if any(one));
        self.rules.iter().any(|rule| !rule.keep && all(&rule.parts))
    }

    /// Whether a path (relative to the context, without `.` and `..`) is left out. A pattern that matches a directory leaves out
    /// all below it.
    pub fn excludes(&self, path: &str) -> bool {
        let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut excluded = false;
        for rule in &self.rules {
            // What decides already what this rule would say needs no match.
            if rule.keep == excluded && rule.covers(&components) {
                excluded = !rule.keep;
            }
        }
        excluded
    }

    /// Whether something below an excluded directory may be taken in again, so that the directory is to be walked.
    pub fn may_keep_below(&self, directory: &str) -> bool {
        let components: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        self.rules.iter().filter(|rule| rule.keep).any(|rule| rule.reaches_below(&components))
    }
}

impl Rule {
    /// The path or a directory above it matches.
    fn covers(&self, path: &[&str]) -> bool {
        reached(&self.parts, path).is_some_and(|reach| reach[1..].contains(&true))
    }

    /// A path below `directory` may match.
    fn reaches_below(&self, directory: &[&str]) -> bool {
        let mut at = 0;
        for segment in &self.parts {
            match segment {
                Segment::Deep => return true,
                Segment::One(tokens) => match directory.get(at) {
                    Some(name) if !fits(tokens, name) => return false,
                    Some(_) => at += 1,
                    None => return true,
                },
            }
        }
        // The pattern is the directory or one above it.
        true
    }
}

fn rule(line: &str, number: usize) -> Result<Option<Rule>, IgnoreError> {
    let (keep, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if keep && pattern.is_empty() {
        return Err(IgnoreError::Exclusion(number));
    }
    let mut cleaned: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if cleaned.last().is_some_and(|last| *last != "..") => drop(cleaned.pop()),
            // Above the context there is nothing.
            ".." => return Ok(None),
            part => cleaned.push(part),
        }
    }
    // `.` and `/` are the context itself, which cannot be left out.
    if cleaned.is_empty() {
        return Ok(None);
    }
    let bad = |why| IgnoreError::Pattern { line: number, pattern: pattern.chars().take(200).collect(), why };
    let segment = |part: &&str| if *part == "**" { Ok(Segment::Deep) } else { tokens(part).map(Segment::One) };
    let parts = cleaned.iter().map(segment).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    Ok(Some(Rule { keep, parts }))
}

/// A component, as Go's filepath.Match has it. `**` inside a component is as good as `*`.
fn tokens(part: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = part.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().ok_or("ends with an escape")?),
            '[' => class(&mut chars)?,
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a character class has no end";
    let not = chars.next_if(|c| *c == '^').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
        Some('\\') => chars.next().ok_or(OPEN),
        Some(c) => Ok(c),
        None => Err(OPEN),
    };
    loop {
        if !ranges.is_empty() && chars.next_if(|c| *c == ']').is_some() {
            return Ok(Token::Class { not, ranges });
        }
        let low = one(chars)?;
        let high = if chars.next_if(|c| *c == '-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// How many of the first components of a path the pattern matches whole; `None`: it matches no number of them. Work is bounded by
/// pattern times path.
fn reached(parts: &[Segment], path: &[&str]) -> Option<Vec<bool>> {
    // Most patterns begin with a name that is not there: nothing is to be kept for those.
    if let (Some(Segment::One(tokens)), Some(name)) = (parts.first(), path.first())
        && !fits(tokens, name)
    {
        return None;
    }
    // reach[n]: the parts so far can match the first n components.
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for (number, part) in parts.iter().enumerate() {
        match part {
            Segment::Deep => {
                let last = number + 1 == parts.len();
                let mut seen = false;
                for here in &mut reach {
                    let above = seen;
                    seen |= *here;
                    // At the end `a/**` is what is below `a`, not `a` itself.
                    *here = if last { above } else { seen };
                }
            }
            Segment::One(tokens) => {
                for n in (0..path.len()).rev() {
                    reach[n + 1] = reach[n] && fits(tokens, path[n]);
                }
                reach[0] = false;
            }
        }
    }
    Some(reach)
}

/// A star takes as little as it can; when the rest does not fit, the last one takes a character more.
fn fits(tokens: &[Token], name: &str) -> bool {
    let (mut rest, mut at, mut star) = (name, 0, None);
    while let Some(c) = rest.chars().next() {
        match tokens.get(at) {
            Some(Token::Any) => {
                at += 1;
                star = Some((at, rest));
            }
            Some(token) if one_fits(token, c) => (rest, at) = (&rest[c.len_utf8()..], at + 1),
            _ => {
                let Some((behind, from)) = star else { return false };
                let mut more = from.chars();
                more.next();
                (rest, at, star) = (more.as_str(), behind, Some((behind, more.as_str())));
            }
        }
    }
    tokens[at..].iter().all(|token| *token == Token::Any)
}

fn one_fits(token: &Token, c: char) -> bool {
    match token {
        Token::Any => false,
        Token::One => true,
        Token::Char(wanted) => *wanted == c,
        Token::Class { not, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("a", &["a", "a/b", "a/b/c"][..], &["b/a", "ab"][..]),
            ("/a/", &["a", "a/b"], &["b/a"]),
            ("*.log", &["x.log"], &["d/x.log", "x.logs"]),
            ("**/*.log", &["x.log", "d/x.log", "d/e/x.log"], &["x.txt"]),
            ("a/**", &["a/b", "a/b/c"], &["a"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "z"]),
            ("**", &["a", "a/b"], &[]),
            ("a?c", &["abc"], &["ac", "a/c"]),
            ("[a-c]x", &["bx"], &["dx"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("\\*", &["*"], &["a"]),
            ("./a/../b", &["b"], &["a"]),
            (" #x", &["#x"], &[]),
        ] {
            let ignore = ignore(pattern);
            for path in yes {
                assert!(ignore.excludes(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!ignore.excludes(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn the_last_match_decides() {
        let all_but = ignore("\u{feff}# all\n*\n!keep\n!src/**/*.rs\nsrc/secret.rs\n");
        assert!(
            all_but.excludes("x") && all_but.excludes("src") && all_but.excludes("src/x.c") && all_but.excludes("src/secret.rs")
        );
        assert!(!all_but.excludes("keep") && !all_but.excludes("keep/x") && !all_but.excludes("src/a/b.rs"));
        assert!(all_but.may_keep_below("src") && !all_but.may_keep_below("other"));
        let again = ignore("!a\na");
        assert!(again.excludes("a"));
        assert!(ignore("docs\n!docs/README.md").may_keep_below("docs"));
        assert!(!ignore("docs\n!docs/README.md").may_keep_below("docs/x"));
    }

    #[test]
    fn the_context_itself_stays() {
        for text in ["", "\n \n# x", ".", "/", "a/..", "../x"] {
            assert!(ignore(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(Ignore::parse(b"a\n!\n").unwrap_err(), IgnoreError::Exclusion(2));
        for bad in ["[a", "a\\", "[", "[]"] {
            assert!(matches!(Ignore::parse(bad.as_bytes()), Err(IgnoreError::Pattern { line: 1, .. })), "{bad}");
        }
        assert_eq!(Ignore::parse(b"\xff").unwrap_err(), IgnoreError::Encoding);
    }

    #[test]
    fn stars_try_every_place() {
        for (pattern, yes, no) in [
            ("*a*b", &["ab", "xaxb", "aab", "abab"][..], &["a", "ba", "abx"][..]),
            ("*.tar.*", &["x.tar.gz", "a.tar.tar.xz"], &["x.tar", "tar.gz"]),
            ("é*ß", &["éß", "éaß", "éßß"], &["é", "ß"]),
            ("**/a/**/b", &["a/b", "x/a/y/z/b", "a/b/c"], &["b/a", "a/x"]),
            ("a*/**/*c", &["ab/c", "a/x/y/bc", "a/c/d"], &["a", "b/c"]),
        ] {
            let ignore = ignore(pattern);
            assert!(yes.iter().all(|path| ignore.excludes(path)), "{pattern}");
            assert!(!no.iter().any(|path| ignore.excludes(path)), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_longer_than_it_is() {
        assert!(!ignore(&"*a".repeat(400)).excludes(&"ab".repeat(2000)));
    }
}
