//! Texts and actions of a template become nodes.

use super::{
    Block, Kind, New, Node, Pipe, Term, Wrong, functions,
    tokens::{Token, tokens},
    wrong,
};

/// Deepest nesting of blocks, and of parentheses.
const DEEPEST: usize = 16;

/// Reads a whole template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, Wrong> {
    let mut parser = Parser { rest: text };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(wrong(format!("unexpected {{{{{}}}}}", end.word()))),
    }
}

struct Parser<'t> {
    rest: &'t str,
}

/// What ends a list of nodes.
enum End<'t> {
    End,
    /// With what stands behind it: nothing, or a block of its own.
    Else(&'t str),
}

impl End<'_> {
    fn word(&self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Else(_) => "else",
        }
    }
}

impl<'t> Parser<'t> {
    /// Up to an `end`, an `else` or the end of the text; answers which.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Option<End<'t>>), Wrong> {
        if depth > DEEPEST {
            return Err(wrong(format!("nested more than {DEEPEST} deep")));
        }
        let mut nodes = Vec::new();
        loop {
            let Some((before, after)) = self.rest.split_once("{{") else {
                nodes.push(Node::Text(std::mem::take(&mut self.rest).to_owned()));
                return Ok((nodes, None));
            };
            let (action, rest) = split_action(after)?;
            let (trimmed, action) = match action.strip_prefix("- ") {
                Some(action) => (before.trim_end(), action),
                None => (before, action),
            };
            nodes.push(Node::Text(trimmed.to_owned()));
            let (rest, action) = match action.strip_suffix(" -") {
                Some(action) => (rest.trim_start(), action),
                None => (rest, action),
            };
            self.rest = rest;
            match self.action(action.trim(), depth)? {
                Action::Node(node) => nodes.push(node),
                Action::Nothing => {}
                Action::End(end) => return Ok((nodes, Some(end))),
            }
        }
    }

    fn action(&mut self, action: &'t str, depth: usize) -> Result<Action<'t>, Wrong> {
        if action.starts_with("/*") {
            return Ok(Action::Nothing);
        }
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        Ok(match (word, kind(word)) {
            ("end", _) => Action::End(End::End),
            ("else", _) => Action::End(End::Else(rest.trim())),
            (_, Some(kind)) => Action::Node(self.block((kind, word), rest, depth)?),
            _ => Action::Node(statement(action)?),
        })
    }

    fn block(&mut self, (kind, word): (Kind, &str), rest: &str, depth: usize) -> Result<Node, Wrong> {
        let (names, _, pipe) = declared(rest)?;
        let (body, end) = self.nodes(depth + 1)?;
        let (other, end) = match end {
            // `else if`: the rest is a block of its own, and one `end` ends both.
            Some(End::Else(rest)) if !rest.is_empty() => match self.action(rest, depth + 1)? {
                Action::Node(node @ Node::Block(_)) => (vec![node], Some(End::End)),
                _ => return Err(wrong(format!("unexpected <{rest}> in else"))),
            },
            Some(End::Else(_)) => self.nodes(depth + 1)?,
            end => (Vec::new(), end),
        };
        match end {
            Some(End::End) => Ok(Node::Block(Box::new(Block { kind, names, pipe, body, other }))),
            Some(End::Else(_)) => Err(wrong("expected {{end}}; found {{else}}")),
            None => Err(wrong(format!("{{{{{word}}}}} without {{{{end}}}}"))),
        }
    }
}

enum Action<'t> {
    Node(Node),
    End(End<'t>),
    Nothing,
}

fn kind(word: &str) -> Option<Kind> {
    match word {
        "if" => Some(Kind::If),
        "range" => Some(Kind::Range),
        "with" => Some(Kind::With),
        _ => None,
    }
}

/// The text up to `}}`, which may stand in a string.
fn split_action(text: &str) -> Result<(&str, &str), Wrong> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Ok((&text[..at], &text[at + 2..])),
            None => {}
        }
    }
    Err(wrong("{{ without }}"))
}

/// A pipe, printed or kept in a variable.
fn statement(text: &str) -> Result<Node, Wrong> {
    let (mut names, new, pipe) = declared(text)?;
    match (names.pop(), names.is_empty()) {
        (None, _) => Ok(Node::Print(pipe)),
        (Some(name), true) => Ok(Node::Set { name, new, pipe }),
        (Some(_), false) => Err(wrong("too many declarations in command")),
    }
}

/// `$x :=`, `$x =`, `$i, $x :=` in front of a pipe, if they are there.
fn declared(text: &str) -> Result<(Vec<String>, New, Pipe), Wrong> {
    let tokens = tokens(text)?;
    let set = tokens.iter().position(|token| matches!(token, Token::Declare | Token::Assign));
    let Some(set) = set else { return Ok((Vec::new(), New::No, pipe(&tokens)?)) };
    let names: Option<Vec<String>> = match &tokens[..set] {
        [one] => one.variable().map(|one| vec![one]),
        [one, Token::Comma, two] => one.variable().zip(two.variable()).map(|(one, two)| vec![one, two]),
        _ => None,
    };
    let names = names.ok_or_else(|| wrong("what is declared is no variable"))?;
    let new = if matches!(tokens[set], Token::Declare) { New::Yes } else { New::No };
    Ok((names, new, pipe(&tokens[set + 1..])?))
}

fn pipe(tokens: &[Token]) -> Result<Pipe, Wrong> {
    match calls(&mut tokens.iter(), 0)? {
        (pipe, None) => Ok(pipe),
        (_, Some(_)) => Err(wrong("unexpected right paren")),
    }
}

/// Calls up to the end, or to a parenthesis that closes: then with the fields behind it.
fn calls(rest: &mut std::slice::Iter<'_, Token>, depth: usize) -> Result<(Pipe, Option<Vec<String>>), Wrong> {
    if depth > DEEPEST {
        return Err(wrong(format!("nested more than {DEEPEST} deep")));
    }
    let mut done = Vec::new();
    let mut call = Vec::new();
    while let Some(token) = rest.next() {
        call.push(match token {
            Token::Pipe => {
                done.push(std::mem::take(&mut call));
                continue;
            }
            Token::Close(path) => {
                done.push(call);
                return Ok((whole(done)?, Some(path.clone())));
            }
            Token::Open => match calls(rest, depth + 1)? {
                (pipe, Some(path)) => Term::Group(pipe, path),
                (_, None) => return Err(wrong("unclosed left paren")),
            },
            Token::Field(path) => Term::Field(path.clone()),
            Token::Variable(name, path) => Term::Variable(name.clone(), path.clone()),
            Token::Literal(value) => Term::Literal(value.clone()),
            Token::Word(word) if functions::KNOWN.contains(&word.as_str()) => Term::Function(word.clone()),
            Token::Word(word) => return Err(wrong(format!("function {word:?} not defined"))),
            Token::Comma | Token::Declare | Token::Assign => return Err(wrong("unexpected \",\" or \"=\" in operand")),
        });
    }
    done.push(call);
    Ok((whole(done)?, None))
}

fn whole(calls: Pipe) -> Result<Pipe, Wrong> {
    if calls.iter().any(Vec::is_empty) { Err(wrong("missing value for command")) } else { Ok(calls) }
}
