//! `--format`: the part of Go's templates that people use with docker, over JSON values.
//!
//! `{{.Name}}`, `{{.State.Status}}`, `{{json .Config}}`, `{{index .Labels "a.b"}}`, `{{join .Tags ", "}}`, `{{len .Tags}}`,
//! `{{upper .X}}`, `{{lower .X}}`, `{{range .Tags}}…{{end}}`, `{{if .X}}…{{else}}…{{end}}`, `{{println .X}}`, pipes, `eq` and `ne`.

use serde_json::Value;

/// Deepest nesting of `range` and `if`.
const DEEPEST: usize = 16;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub(crate) struct Wrong(String);

fn wrong(why: impl Into<String>) -> Wrong {
    Wrong(why.into())
}

/// A template that was read.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Print(Pipe),
    Range(Pipe, Vec<Node>, Vec<Node>),
    If(Pipe, Vec<Node>, Vec<Node>),
}

/// Calls, each with the result of the one before as its last argument.
type Pipe = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `.`, `.A.B`.
    Field(Vec<String>),
    Word(String),
    Text(String),
    Number(i64),
}

impl Template {
    /// Reads a template. `\t` and `\n` in it are a tab and a line's end, because a shell's quotes hand them on as they are.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parser = Parser { rest: &text };
        let (nodes, end) = parser.nodes(0)?;
        if end.is_empty() { Ok(Self { nodes }) } else { Err(wrong(format!("unexpected {{{{{end}}}}}"))) }
    }

    /// The text for a value.
    pub(crate) fn render(&self, value: &Value) -> Result<String, Wrong> {
        let mut out = String::new();
        render(&self.nodes, value, &mut out)?;
        Ok(out)
    }

    /// The headings of a table: the last part of each field.
    pub(crate) fn heading(&self, names: &dyn Fn(&str) -> String) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipe) => {
                    let fields = pipe.iter().flatten().filter_map(|term| match term {
                        Term::Field(path) => path.last(),
                        _ => None,
                    });
                    out.push_str(&fields.map(|field| names(field)).collect::<Vec<_>>().join(" "));
                }
                Node::Range(..) | Node::If(..) => {}
            }
        }
        out
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    /// Up to an `end`, an `else` or the end of the text; answers which.
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, String), Wrong> {
        if depth > DEEPEST {
            return Err(wrong(format!("nested more than {DEEPEST} deep")));
        }
        let mut nodes = Vec::new();
        loop {
            let Some((before, after)) = self.rest.split_once("{{") else {
                nodes.push(Node::Text(std::mem::take(&mut self.rest).to_owned()));
                return Ok((nodes, String::new()));
            };
            let (action, rest) = split_action(after)?;
            self.rest = rest;
            let trimmed = action.strip_prefix("- ").map_or(before, |_| before.trim_end());
            nodes.push(Node::Text(trimmed.to_owned()));
            let action = action.strip_prefix("- ").unwrap_or(action);
            let action = match action.strip_suffix(" -") {
                Some(action) => {
                    self.rest = self.rest.trim_start();
                    action
                }
                None => action,
            };
            let action = action.trim();
            let (word, arguments) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
            match word {
                "end" | "else" => return Ok((nodes, word.to_owned())),
                "range" | "if" => nodes.push(self.block(word, arguments, depth)?),
                _ if action.starts_with("/*") => {}
                _ => nodes.push(Node::Print(pipe(action)?)),
            }
        }
    }

    fn block(&mut self, word: &str, arguments: &str, depth: usize) -> Result<Node, Wrong> {
        let pipe = pipe(arguments)?;
        let (body, end) = self.nodes(depth + 1)?;
        let (other, end) = if end == "else" { self.nodes(depth + 1)? } else { (Vec::new(), end) };
        if end != "end" {
            return Err(wrong(format!("{{{{{word}}}}} without {{{{end}}}}")));
        }
        Ok(if word == "range" { Node::Range(pipe, body, other) } else { Node::If(pipe, body, other) })
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

fn pipe(text: &str) -> Result<Pipe, Wrong> {
    let mut calls = vec![Vec::new()];
    for token in tokens(text)? {
        match token {
            None => calls.push(Vec::new()),
            Some(term) => calls.last_mut().into_iter().for_each(|call: &mut Vec<Term>| call.push(term.clone())),
        }
    }
    if calls.iter().any(Vec::is_empty) { Err(wrong("missing value for command")) } else { Ok(calls) }
}

/// Terms; `None` is a pipe.
fn tokens(text: &str) -> Result<Vec<Option<Term>>, Wrong> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '|' => tokens.push(None),
            '"' | '`' => tokens.push(Some(Term::Text(string(c, &mut chars)?))),
            '(' | ')' | '$' => return Err(wrong(format!("{c:?} is not supported"))),
            c => {
                let mut word = c.to_string();
                while let Some(next) = chars.next_if(|c| !c.is_whitespace() && !matches!(c, '|' | '(' | ')' | '"')) {
                    word.push(next);
                }
                tokens.push(Some(term(word)?));
            }
        }
    }
    Ok(tokens)
}

fn string(quote: char, chars: &mut impl Iterator<Item = char>) -> Result<String, Wrong> {
    let mut text = String::new();
    loop {
        match chars.next().ok_or_else(|| wrong("unterminated quoted string"))? {
            c if c == quote => return Ok(text),
            '\\' if quote == '"' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
}

fn term(word: String) -> Result<Term, Wrong> {
    if let Some(path) = word.strip_prefix('.') {
        return Ok(Term::Field(path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()));
    }
    if let Ok(number) = word.parse() {
        return Ok(Term::Number(number));
    }
    const KNOWN: [&str; 14] =
        ["json", "index", "join", "len", "upper", "lower", "title", "println", "printf", "eq", "ne", "not", "truncate", "split"];
    match word.as_str() {
        "true" | "false" => Ok(Term::Word(word)),
        known if KNOWN.contains(&known) => Ok(Term::Word(word)),
        other => Err(wrong(format!("function {other:?} not defined"))),
    }
}

fn render(nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), Wrong> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&shown(&evaluate(pipe, dot)?)),
            Node::If(pipe, yes, no) => render(if truth(&evaluate(pipe, dot)?) { yes } else { no }, dot, out)?,
            Node::Range(pipe, each, none) => match evaluate(pipe, dot)? {
                Value::Array(items) if !items.is_empty() => items.iter().try_for_each(|item| render(each, item, out))?,
                Value::Object(map) if !map.is_empty() => map.values().try_for_each(|item| render(each, item, out))?,
                Value::Array(_) | Value::Object(_) | Value::Null => render(none, dot, out)?,
                other => return Err(wrong(format!("range can't iterate over {}", shown(&other)))),
            },
        }
    }
    Ok(())
}

fn evaluate(pipe: &Pipe, dot: &Value) -> Result<Value, Wrong> {
    let mut last: Option<Value> = None;
    for call in pipe {
        let (first, rest) = call.split_first().ok_or_else(|| wrong("missing value for command"))?;
        let mut arguments = rest.iter().map(|term| value(term, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last.take());
        last = Some(match first {
            Term::Word(name) if name != "true" && name != "false" => function(name, arguments)?,
            Term::Field(path) if path == &["Label"] => label(dot, &arguments)?,
            other if arguments.is_empty() => value(other, dot)?,
            _ => return Err(wrong("can't give argument to non-function")),
        });
    }
    last.ok_or_else(|| wrong("missing value for command"))
}

/// `.Label "NAME"` of a list's row, whose labels are `NAME=VALUE,NAME=VALUE`.
fn label(dot: &Value, arguments: &[Value]) -> Result<Value, Wrong> {
    let [Value::String(name)] = arguments else { return Err(wrong("wrong number of args for Label: want 1")) };
    let Some(Value::String(labels)) = dot.get("Labels") else { return Err(wrong("can't evaluate field Label")) };
    let front = format!("{name}=");
    let begins = |(at, _): &(usize, &str)| *at == 0 || labels[..*at].ends_with(',');
    let Some((at, _)) = labels.match_indices(&front).find(begins) else { return Ok(Value::from("")) };
    let rest = &labels[at + front.len()..];
    // A comma ends the value where a name follows it.
    let names = |(at, _): &(usize, &str)| rest[at + 1..].split_once('=').is_some_and(|(name, _)| !name.contains(','));
    let end = rest.match_indices(',').find(names).map_or(rest.len(), |(at, _)| at);
    Ok(Value::from(&rest[..end]))
}

fn value(term: &Term, dot: &Value) -> Result<Value, Wrong> {
    match term {
        Term::Text(text) => Ok(Value::from(text.as_str())),
        Term::Number(number) => Ok(Value::from(*number)),
        Term::Word(word) if word == "true" || word == "false" => Ok(Value::from(word == "true")),
        Term::Word(word) => function(word, Vec::new()),
        Term::Field(path) => {
            let mut at = dot;
            for (number, part) in path.iter().enumerate() {
                at = match at.get(part) {
                    Some(next) => next,
                    // Go prints <no value> for what a map does not have; a misspelt field at the top is a mistake.
                    None if number > 0 || !at.is_object() => return Ok(Value::Null),
                    None => return Err(wrong(format!("can't evaluate field {part}"))),
                };
            }
            Ok(at.clone())
        }
    }
}

fn function(name: &str, arguments: Vec<Value>) -> Result<Value, Wrong> {
    let few = || wrong(format!("wrong number of args for {name}"));
    let first = arguments.first().ok_or_else(few)?;
    let text = |value: &Value| Value::from(shown(value));
    Ok(match name {
        "json" => Value::from(serde_json::to_string(first).map_err(|e| wrong(e.to_string()))?),
        "len" => Value::from(match first {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::Null => 0,
            other => shown(other).len(),
        }),
        "upper" => Value::from(shown(first).to_uppercase()),
        "lower" => Value::from(shown(first).to_lowercase()),
        "title" => text(first),
        "println" => Value::from(arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n"),
        "not" => Value::from(!truth(first)),
        "eq" => Value::from(arguments.iter().skip(1).any(|other| shown(other) == shown(first))),
        "ne" => Value::from(shown(arguments.get(1).ok_or_else(few)?) != shown(first)),
        "index" => arguments.iter().skip(1).fold(first.clone(), |at, key| match (&at, key) {
            (Value::Array(items), Value::Number(n)) => {
                n.as_u64().and_then(|n| items.get(usize::try_from(n).ok()?)).cloned().unwrap_or_default()
            }
            (Value::Object(map), key) => map.get(&shown(key)).cloned().unwrap_or_default(),
            _ => Value::Null,
        }),
        "join" => {
            let separator = shown(arguments.get(1).ok_or_else(few)?);
            let Value::Array(items) = first else { return Ok(text(first)) };
            Value::from(items.iter().map(shown).collect::<Vec<_>>().join(&separator))
        }
        "split" => {
            let separator = shown(arguments.get(1).ok_or_else(few)?);
            shown(first).split(separator.as_str()).map(Value::from).collect()
        }
        "truncate" => {
            let most = arguments.get(1).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).ok_or_else(few)?;
            Value::from(shown(first).chars().take(most).collect::<String>())
        }
        "printf" => return Err(wrong("printf is not supported")),
        other => return Err(wrong(format!("function {other:?} not defined"))),
    })
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let value = json!({
            "Id": "sha256:ab", "Tags": ["a:1", "b:2"], "None": [], "N": 3, "State": {"Running": true, "Code": 0},
            "Labels": {"x.y": "z"},
        });
        Template::parse(text).and_then(|template| template.render(&value)).map_err(|e| e.to_string())
    }

    #[test]
    fn what_people_write() {
        for (text, result) in [
            ("{{.Id}} {{ .N }}", "sha256:ab 3"),
            ("{{.State.Running}}\\t{{.State.Missing}}", "true\t<no value>"),
            ("{{json .Tags}}{{json .}}", ""),
            ("{{index .Labels \"x.y\"}} {{index .Tags 1}}", "z b:2"),
            ("{{join .Tags \", \"}} {{len .Tags}}", "a:1, b:2 2"),
            ("{{range .Tags}}{{.}};{{end}}{{range .None}}x{{else}}-{{end}}", "a:1;b:2;-"),
            ("{{if .State.Running}}up{{else}}down{{end}} {{if eq .N 3}}three{{end}}", "up three"),
            ("{{.Id | upper | lower}} {{println .N}}", "sha256:ab 3\n"),
            ("{{.Tags}} {{.Labels}}", "[a:1 b:2] map[x.y:z]"),
            ("a {{- .N -}} b", "a3b"),
            ("no actions", "no actions"),
        ] {
            let rendered = render(text).unwrap();
            if !result.is_empty() {
                assert_eq!(rendered, result, "{text}");
            }
        }
        assert!(render("{{json .Tags}}").unwrap() == r#"["a:1","b:2"]"#);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, why) in [
            ("{{.Nope}}", "template: can't evaluate field Nope"),
            ("{{", "template: {{ without }}"),
            ("{{}}", "template: missing value for command"),
            ("{{end}}", "template: unexpected {{end}}"),
            ("{{range .Tags}}", "template: {{range}} without {{end}}"),
            ("{{frob .Id}}", "template: function \"frob\" not defined"),
            ("{{.Id \"x\"}}", "template: can't give argument to non-function"),
            ("{{join .Tags}}", "template: wrong number of args for join"),
        ] {
            assert_eq!(render(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn headings() {
        let template = Template::parse("{{.Id}}\\t{{.State.Code}}").unwrap();
        assert_eq!(template.heading(&|field: &str| field.to_uppercase()), "ID\tCODE");
    }
}
