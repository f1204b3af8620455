//! The words of an action.

use serde_json::Value;

use super::{Wrong, wrong};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`, `.A.B`.
    Field(Vec<String>),
    /// `$`, `$x.A`.
    Variable(String, Vec<String>),
    Literal(Value),
    Word(String),
    Pipe,
    Open,
    /// With the fields behind it.
    Close(Vec<String>),
    Comma,
    Declare,
    Assign,
}

impl Token {
    /// The name of a variable without fields.
    pub(super) fn variable(&self) -> Option<String> {
        match self {
            Self::Variable(name, path) if path.is_empty() && !name.is_empty() => Some(name.clone()),
            _ => None,
        }
    }
}

type Chars<'t> = std::iter::Peekable<std::str::Chars<'t>>;

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Wrong> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '|' => Token::Pipe,
            ',' => Token::Comma,
            '=' => Token::Assign,
            '(' => Token::Open,
            ')' => Token::Close(path(&rest_of_word(String::new(), &mut chars))?),
            ':' if chars.next_if_eq(&'=').is_some() => Token::Declare,
            '"' | '`' => Token::Literal(Value::from(string(c, &mut chars)?)),
            c => word(&rest_of_word(c.to_string(), &mut chars))?,
        });
    }
    Ok(tokens)
}

fn rest_of_word(mut word: String, chars: &mut Chars<'_>) -> String {
    while let Some(next) = chars.next_if(|c| !c.is_whitespace() && !matches!(c, '|' | '(' | ')' | '"' | '`' | ',' | '=' | ':')) {
        word.push(next);
    }
    word
}

fn word(word: &str) -> Result<Token, Wrong> {
    if word.starts_with('.') && !word[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Token::Field(path(word)?));
    }
    if let Some(rest) = word.strip_prefix('$') {
        let (name, fields) = rest.find('.').map_or((rest, ""), |at| rest.split_at(at));
        return Ok(Token::Variable(name.to_owned(), path(fields)?));
    }
    Ok(match (word, word.parse::<i64>(), word.parse::<f64>()) {
        ("true" | "false", ..) => Token::Literal(Value::from(word == "true")),
        ("nil", ..) => Token::Literal(Value::Null),
        (_, Ok(number), _) => Token::Literal(Value::from(number)),
        (_, _, Ok(number)) if word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
            Token::Literal(Value::from(number))
        }
        _ if word.chars().all(|c| c.is_alphanumeric() || c == '_') => Token::Word(word.to_owned()),
        _ => return Err(wrong(format!("unexpected {word:?} in command"))),
    })
}

/// `.A.B`; nothing, or a dot alone, is no field.
fn path(text: &str) -> Result<Vec<String>, Wrong> {
    match text.strip_prefix('.') {
        None if text.is_empty() => Ok(Vec::new()),
        None => Err(wrong(format!("unexpected {text:?} behind a right paren"))),
        Some("") => Ok(Vec::new()),
        Some(rest) if rest.split('.').any(str::is_empty) => Err(wrong(format!("bad field {text:?}"))),
        Some(rest) => Ok(rest.split('.').map(str::to_owned).collect()),
    }
}

fn string(quote: char, chars: &mut Chars<'_>) -> Result<String, Wrong> {
    let mut text = String::new();
    loop {
        match chars.next().ok_or_else(|| wrong("unterminated quoted string"))? {
            c if c == quote => return Ok(text),
            '\\' if quote == '"' => text.push(match chars.next().ok_or_else(|| wrong("unterminated quoted string"))? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\' | '\'') => c,
                other => return Err(wrong(format!("unknown escape \\{other}"))),
            }),
            c => text.push(c),
        }
    }
}
