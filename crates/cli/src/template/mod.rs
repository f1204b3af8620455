//! `--format`: Go's templates as people use them with docker, over JSON values.
//!
//! Fields, variables, pipes, parentheses, `if`, `else if`, `range`, `with`, comments, trimming, and the functions of Go's and
//! docker's that scripts use: see [`functions`].

mod functions;
mod parse;
mod printf;
mod tokens;

use serde_json::Value;

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
    /// `$name := pipe` or `$name = pipe`.
    Set {
        name: String,
        new: New,
        pipe: Pipe,
    },
    Block(Box<Block>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum New {
    Yes,
    No,
}

/// `if`, `range` and `with`.
#[derive(Clone, Debug)]
struct Block {
    kind: Kind,
    /// `$x :=` of any, `$index, $element :=` of `range`.
    names: Vec<String>,
    pipe: Pipe,
    body: Vec<Node>,
    other: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    If,
    Range,
    With,
}

/// Calls, each with the result of the one before as its last argument.
type Pipe = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// `.`, `.A.B`.
    Field(Vec<String>),
    /// `$`, `$x`, `$x.A.B`.
    Variable(String, Vec<String>),
    /// `(...)`, `(...).A.B`.
    Group(Pipe, Vec<String>),
    Function(String),
    Literal(Value),
}

impl Template {
    /// Reads a template. `\t` and `\n` in it are a tab and a line's end, because a shell's quotes hand them on as they are.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        parse::template(&text).map(|nodes| Self { nodes })
    }

    /// The text for a value.
    pub(crate) fn render(&self, value: &Value) -> Result<String, Wrong> {
        let mut run = Run { out: String::new(), variables: vec![(String::new(), value.clone())] };
        run.nodes(&self.nodes, value)?;
        Ok(run.out)
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
                Node::Set { .. } | Node::Block(_) => {}
            }
        }
        out
    }
}

/// A template being rendered.
struct Run {
    out: String,
    /// The innermost last; the one without a name is `$`.
    variables: Vec<(String, Value)>,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Wrong> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    self.out.push_str(&functions::shown(&value));
                }
                Node::Set { name, new, pipe } => {
                    let value = self.pipe(pipe, dot)?;
                    self.set(name, *new, value)?;
                }
                Node::Block(block) => {
                    let known = self.variables.len();
                    self.block(block, dot)?;
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, new: New, value: Value) -> Result<(), Wrong> {
        match (new, self.variables.iter_mut().rev().find(|(known, _)| known == name)) {
            (New::Yes, _) => self.variables.push((name.to_owned(), value)),
            (New::No, Some((_, old))) => *old = value,
            (New::No, None) => return Err(wrong(format!("undefined variable \"${name}\""))),
        }
        Ok(())
    }

    fn block(&mut self, block: &Block, dot: &Value) -> Result<(), Wrong> {
        let value = self.pipe(&block.pipe, dot)?;
        if block.kind == Kind::Range {
            return self.range(block, value, dot);
        }
        let inside = if block.kind == Kind::With { value.clone() } else { dot.clone() };
        let yes = functions::truth(&value);
        for name in &block.names {
            self.variables.push((name.clone(), value.clone()));
        }
        if yes { self.nodes(&block.body, &inside) } else { self.nodes(&block.other, dot) }
    }

    fn range(&mut self, block: &Block, value: Value, dot: &Value) -> Result<(), Wrong> {
        let items: Vec<(Value, Value)> = match value {
            Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, item)| (Value::from(key), item)).collect(),
            Value::Null => Vec::new(),
            other => return Err(wrong(format!("range can't iterate over {}", functions::shown(&other)))),
        };
        if items.is_empty() {
            return self.nodes(&block.other, dot);
        }
        let known = self.variables.len();
        for (key, item) in items {
            match block.names.as_slice() {
                [] => {}
                [element] => self.variables.push((element.clone(), item.clone())),
                [index, element, ..] => self.variables.extend([(index.clone(), key), (element.clone(), item.clone())]),
            }
            self.nodes(&block.body, &item)?;
            self.variables.truncate(known);
        }
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Value, Wrong> {
        let mut last: Option<Value> = None;
        for call in pipe {
            last = Some(self.call(call, last, dot)?);
        }
        last.ok_or_else(|| wrong("missing value for command"))
    }

    fn call(&self, call: &[Term], last: Option<Value>, dot: &Value) -> Result<Value, Wrong> {
        let (first, rest) = call.split_first().ok_or_else(|| wrong("missing value for command"))?;
        if let Term::Function(name) = first
            && matches!(name.as_str(), "and" | "or")
        {
            return self.either(name, rest, last, dot);
        }
        let mut arguments = rest.iter().map(|term| self.value(term, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last);
        match first {
            Term::Function(name) => functions::call(name, &arguments),
            Term::Field(path) if path == &["Label"] => functions::label(dot, &arguments),
            other if arguments.is_empty() => self.value(other, dot),
            _ => Err(wrong("can't give argument to non-function")),
        }
    }

    /// `and` and `or`: what comes behind the value that decides is not looked at.
    fn either(&self, name: &str, terms: &[Term], last: Option<Value>, dot: &Value) -> Result<Value, Wrong> {
        let mut value = None;
        for term in terms {
            let found = self.value(term, dot)?;
            if functions::truth(&found) == (name == "or") {
                return Ok(found);
            }
            value = Some(found);
        }
        last.or(value).ok_or_else(|| wrong(format!("wrong number of args for {name}")))
    }

    fn value(&self, term: &Term, dot: &Value) -> Result<Value, Wrong> {
        match term {
            Term::Literal(value) => Ok(value.clone()),
            Term::Function(name) => functions::call(name, &[]),
            Term::Field(path) => match path.first() {
                // Go prints <no value> for what a map does not have; a misspelt field at the top is a mistake.
                Some(part) if dot.is_object() && dot.get(part).is_none() => Err(wrong(format!("can't evaluate field {part}"))),
                _ => Ok(below(dot, path)),
            },
            Term::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| wrong(format!("undefined variable \"${name}\"")))?;
                Ok(below(value, path))
            }
            Term::Group(pipe, path) => Ok(below(&self.pipe(pipe, dot)?, path)),
        }
    }
}

fn below(value: &Value, path: &[String]) -> Value {
    path.iter().try_fold(value, |at, part| at.get(part)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let value = json!({
            "Id": "sha256:ab", "Tags": ["a:1", "b:2"], "None": [], "N": 3, "State": {"Running": true, "Code": 0},
            "Labels": {"x.y": "z"}, "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": null}, "Null": null,
        });
        Template::parse(text).and_then(|template| template.render(&value)).map_err(|e| e.to_string())
    }

    #[test]
    fn what_people_write() {
        for (text, result) in [
            ("{{.Id}} {{ .N }}", "sha256:ab 3"),
            ("{{.State.Running}}\\t{{.State.Missing}}", "true\t<no value>"),
            ("{{json .Tags}}", r#"["a:1","b:2"]"#),
            ("{{index .Labels \"x.y\"}} {{index .Tags 1}}", "z b:2"),
            ("{{index .Labels \"other\"}}|{{index .Null \"x\"}}|", "||"),
            ("{{join .Tags \", \"}} {{len .Tags}}", "a:1, b:2 2"),
            ("{{range .Tags}}{{.}};{{end}}{{range .None}}x{{else}}-{{end}}", "a:1;b:2;-"),
            ("{{if .State.Running}}up{{else}}down{{end}} {{if eq .N 3}}three{{end}}", "up three"),
            ("{{.Id | upper | lower}} {{println .N}}", "sha256:ab 3\n"),
            ("{{.Tags}} {{.Labels}}", "[a:1 b:2] map[x.y:z]"),
            ("a {{- .N -}} b", "a3b"),
            ("{{- /* said */ -}} x", "x"),
            ("no actions", "no actions"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{range $p, $c := .Ports}}{{$p}}{{if $c}} -> {{(index $c 0).HostPort}}{{end}};{{end}}", "80/tcp -> 8080;90/tcp;"),
            ("{{range $i, $t := .Tags}}{{if $i}},{{end}}{{$t}}{{end}}", "a:1,b:2"),
            ("{{range .Tags}}{{$.Id}} {{end}}", "sha256:ab sha256:ab "),
            ("{{with .State}}{{.Code}}{{else}}none{{end}}{{with .Null}}x{{else}}none{{end}}", "0none"),
            ("{{if eq .N 1}}a{{else if eq .N 3}}b{{else}}c{{end}}", "b"),
            ("{{$x := .N}}{{if true}}{{$x = 5}}{{end}}{{$x}}", "5"),
            ("{{if and .State.Running (gt .N 2) (not .None)}}yes{{end}}{{or .Null \"other\"}}", "yesother"),
            ("{{and .Null (index .Tags 9)}}", "<no value>"),
            (
                "{{if ne .Id \"x\"}}{{printf \"%.9s|%5d|%-4v|%q|%t\" .Id .N .N .Id true}}{{end}}",
                "sha256:ab|    3|3   |\"sha256:ab\"|true",
            ),
            ("{{slice .Id 7}} {{slice .Id 0 3}} {{len (slice .Tags 1)}}", "ab sha 1"),
            ("{{title \"some words\"}}{{pad .N 1 2}}.{{truncate .Id 3}}", "Some Words 3  .sha"),
            ("{{index (split .Id \":\") 1}} {{print 1 2 \"a\" 3}} {{lt 1 2}} {{ge \"b\" \"c\"}}", "ab 1 2a3 true false"),
            ("{{`raw \"text\"`}} {{\"a \\\"quote\\\" }}\"}} {{eq .N 1 2 3}}", "raw \"text\" a \"quote\" }} true"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(result), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, why) in [
            ("{{.Nope}}", "can't evaluate field Nope"),
            ("{{", "{{ without }}"),
            ("{{}}", "missing value for command"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{range .Tags}}", "{{range}} without {{end}}"),
            ("{{if .N}}{{else}}{{else}}{{end}}", "expected {{end}}; found {{else}}"),
            ("{{frob .Id}}", "function \"frob\" not defined"),
            ("{{.Id \"x\"}}", "can't give argument to non-function"),
            ("{{join .Tags}}", "wrong number of args for join"),
            ("{{index .Tags 7}}", "error calling index: index out of range: 7"),
            ("{{index .Null 0}}", "error calling index: index of untyped nil"),
            ("{{eq .N \"3\"}}", "error calling eq: incompatible types for comparison"),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{(.N}}", "unclosed left paren"),
            ("{{.N)}}", "unexpected right paren"),
            ("{{range .N}}{{end}}", "range can't iterate over 3"),
            ("{{and}}", "wrong number of args for and"),
        ] {
            assert_eq!(render(text).unwrap_err(), format!("template: {why}"), "{text}");
        }
        assert!(render(&"{{if .N}}".repeat(100)).is_err() && render(&format!("{{{{{}1}}}}", "(".repeat(9999))).is_err());
    }

    #[test]
    fn headings() {
        let template = Template::parse("{{.Id}}\\t{{.State.Code}}").unwrap();
        assert_eq!(template.heading(&|field: &str| field.to_uppercase()), "ID\tCODE");
    }
}
