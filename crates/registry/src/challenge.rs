//! `WWW-Authenticate`, read strictly (RFC 9110 section 11.6.1).

const LONGEST: usize = 16 * 1024;
const MOST_CHALLENGES: usize = 8;
const MOST_PARAMETERS: usize = 16;

/// Why a header is not a list of challenges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Longer than 16 KiB.
    #[error("longer than 16384 bytes")]
    TooLong,
    /// More than 8 challenges or 16 parameters.
    #[error("too many challenges or parameters")]
    TooMany,
    /// A character where the grammar has another.
    #[error("malformed at byte {0}")]
    Form(usize),
    /// A parameter said twice.
    #[error("parameter {0:?} said twice")]
    Twice(String),
    /// No realm, or one that is not asked.
    #[error("bearer realm: {0}")]
    Realm(&'static str),
}

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic` ..; lower-case.
    pub scheme: String,
    /// Parameters, names in lower case, values without quotes.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one `WWW-Authenticate` header; it may have several challenges.
///
/// # Errors
/// See [`ChallengeError`].
pub fn parse_challenge(header: &[u8]) -> Result<Vec<Challenge>, ChallengeError> {
    if header.len() > LONGEST {
        return Err(ChallengeError::TooLong);
    }
    let mut reader = Reader { bytes: header, position: 0 };
    let mut challenges: Vec<Challenge> = Vec::new();
    reader.separators();
    while !reader.at_end() {
        if challenges.len() == MOST_CHALLENGES {
            return Err(ChallengeError::TooMany);
        }
        let scheme = reader.token()?.to_ascii_lowercase();
        let mut challenge = Challenge { scheme, parameters: Vec::new() };
        if reader.spaces() && !reader.token68() {
            reader.parameters(&mut challenge)?;
        }
        challenges.push(challenge);
        reader.next_in_list()?;
    }
    Ok(challenges)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    fn at_end(&self) -> bool {
        self.position >= self.bytes.len()
    }

    fn wrong(&self) -> ChallengeError {
        ChallengeError::Form(self.position)
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let start = self.position;
        while self.peek().is_some_and(&wanted) {
            self.position += 1;
        }
        self.position > start
    }

    fn spaces(&mut self) -> bool {
        self.skip(|c| matches!(c, b' ' | b'\t'))
    }

    fn separators(&mut self) -> bool {
        self.skip(|c| matches!(c, b' ' | b'\t' | b','))
    }

    /// The list goes on after a comma, or is over.
    fn next_in_list(&mut self) -> Result<(), ChallengeError> {
        self.spaces();
        match self.peek() {
            None => Ok(()),
            Some(b',') => {
                self.separators();
                Ok(())
            }
            // Parameters took the comma already.
            Some(_) if self.position > 0 && matches!(self.bytes[self.position - 1], b' ' | b'\t' | b',') => Ok(()),
            Some(_) => Err(self.wrong()),
        }
    }

    fn token(&mut self) -> Result<String, ChallengeError> {
        let start = self.position;
        if !self.skip(is_token) {
            return Err(self.wrong());
        }
        Ok(String::from_utf8_lossy(&self.bytes[start..self.position]).into_owned())
    }

    /// `Negotiate abc==`: passed over, if it is one.
    fn token68(&mut self) -> bool {
        let start = self.position;
        let some = self.skip(|c| c.is_ascii_alphanumeric() || b"-._~+/".contains(&c));
        self.skip(|c| c == b'=');
        let end = self.position;
        self.spaces();
        let whole = some && matches!(self.peek(), None | Some(b','));
        self.position = if whole { end } else { start };
        whole
    }

    /// `name=value, name="value"` until the list ends or another scheme begins.
    fn parameters(&mut self, challenge: &mut Challenge) -> Result<(), ChallengeError> {
        loop {
            let start = self.position;
            let name = self.token()?.to_ascii_lowercase();
            self.spaces();
            if self.peek() != Some(b'=') {
                if challenge.parameters.is_empty() {
                    return Err(self.wrong());
                }
                // No parameter: the next challenge's scheme.
                self.position = start;
                return Ok(());
            }
            self.position += 1;
            self.spaces();
            let value = if self.peek() == Some(b'"') { self.quoted()? } else { self.token()? };
            if challenge.get(&name).is_some() {
                return Err(ChallengeError::Twice(name.chars().take(40).collect()));
            }
            if challenge.parameters.len() == MOST_PARAMETERS {
                return Err(ChallengeError::TooMany);
            }
            challenge.parameters.push((name, value));
            self.spaces();
            match self.peek() {
                None => return Ok(()),
                Some(b',') => {
                    self.separators();
                    if self.at_end() {
                        return Ok(());
                    }
                }
                Some(_) => return Err(self.wrong()),
            }
        }
    }

    fn quoted(&mut self) -> Result<String, ChallengeError> {
        self.position += 1;
        let mut value = Vec::new();
        loop {
            let byte = self.peek().ok_or_else(|| self.wrong())?;
            self.position += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    let escaped = self.peek().filter(|c| *c >= b' ' && *c != 0x7f).ok_or_else(|| self.wrong())?;
                    self.position += 1;
                    value.push(escaped);
                }
                b'\t' | b' '..=b'~' | 0x80.. => value.push(byte),
                _ => return Err(self.wrong()),
            }
        }
        String::from_utf8(value).map_err(|_| self.wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Challenge> {
        parse_challenge(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn challenges_are_read() {
        let hub =
            read(r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#);
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(hub[0].get("scope"), Some("repository:a/b:pull,push"));
        let several = read(r#", Basic realm="a \"b\\", BEARER Realm = x , SERVICE="s",, Negotiate abc==, NTLM"#);
        let schemes: Vec<&str> = several.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["basic", "bearer", "negotiate", "ntlm"]);
        assert_eq!(several[0].get("realm"), Some("a \"b\\"));
        assert_eq!((several[1].get("realm"), several[1].get("service")), (Some("x"), Some("s")));
        assert_eq!(read(""), []);
        assert_eq!(read("Negotiate")[0].parameters, []);
    }

    #[test]
    fn malformed_ones_are_refused() {
        for bad in [
            "Bearer realm=\"x",
            "Bearer realm=https://x",
            "Bearer realm=\"x\" service=\"y\"",
            "Bearer realm=\"x\\",
            "Bearer realm=\"x\ny\"",
            "Bearer =x",
            "\"x\"",
            "Bearer realm=\"x\", realm=\"y\"",
            "Bearer a b",
            "Bearer realm=\"\u{7}\"",
        ] {
            assert!(parse_challenge(bad.as_bytes()).is_err(), "{bad}: {:?}", parse_challenge(bad.as_bytes()));
        }
        assert!(parse_challenge(b"Bearer realm=\"\xff\"").is_err());
        assert_eq!(parse_challenge(&vec![b'a'; 1 << 20]), Err(ChallengeError::TooLong));
        assert_eq!(parse_challenge("Basic x, ".repeat(500).as_bytes()), Err(ChallengeError::TooMany));
        let many: Vec<String> = (0..20).map(|n| format!("p{n}=1")).collect();
        assert_eq!(parse_challenge(format!("Bearer {}", many.join(",")).as_bytes()), Err(ChallengeError::TooMany));
    }

    #[test]
    fn no_bytes_make_it_loop_or_panic() {
        // All strings of up to five characters that matter to the grammar.
        let alphabet = b"aB =,\"\\/\x01";
        for length in 0..=5u32 {
            for mut number in 0..alphabet.len().pow(length) {
                let text: Vec<u8> = (0..length)
                    .map(|_| {
                        let byte = alphabet[number % alphabet.len()];
                        number /= alphabet.len();
                        byte
                    })
                    .collect();
                drop(parse_challenge(&text));
            }
        }
    }
}
