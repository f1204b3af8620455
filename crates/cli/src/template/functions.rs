//! The functions: those of Go's text/template, and those of docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Wrong, printf::printf, wrong};

/// All that a template may call.
pub(super) const KNOWN: [&str; 25] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "slice", "len", "print", "println", "printf", "html",
    "urlquery", "json", "join", "split", "lower", "upper", "title", "pad", "truncate",
];

/// The result of a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, Wrong> {
    let few = || wrong(format!("wrong number of args for {name}"));
    let failed = |why: String| wrong(format!("error calling {name}: {why}"));
    match name {
        "print" => return Ok(Value::from(print(arguments))),
        "println" => return Ok(Value::from(arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n")),
        _ => {}
    }
    let (first, rest) = arguments.split_first().ok_or_else(few)?;
    let second = || rest.first().ok_or_else(few);
    let text = |value: &Value| if value.is_null() { String::new() } else { shown(value) };
    Ok(match name {
        "json" => Value::from(serde_json::to_string(first).map_err(|e| failed(e.to_string()))?),
        "len" => Value::from(length(first)),
        "upper" => Value::from(text(first).to_uppercase()),
        "lower" => Value::from(text(first).to_lowercase()),
        "title" => Value::from(title(&text(first))),
        "html" => Value::from(escaped_html(&text(first))),
        "urlquery" => Value::from(escaped_query(&text(first))),
        "not" => Value::from(!truth(first)),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => Value::from(compare(name, first, rest).map_err(|why| match why {
            "" => few(),
            why => failed(why.to_owned()),
        })?),
        "index" => rest.iter().try_fold(first.clone(), |at, key| index(&at, key)).map_err(failed)?,
        "slice" => slice(first, rest).map_err(failed)?,
        "join" => {
            let separator = text(second()?);
            let Value::Array(items) = first else { return Ok(Value::from(text(first))) };
            Value::from(items.iter().map(shown).collect::<Vec<_>>().join(&separator))
        }
        "split" => text(first).split(text(second()?).as_str()).map(Value::from).collect(),
        "truncate" => Value::from(text(first).chars().take(count(second()?).ok_or_else(few)?).collect::<String>()),
        "pad" => {
            let spaces = |at: usize| rest.get(at).and_then(count).filter(|n| *n <= 4096).map(|n| " ".repeat(n)).ok_or_else(few);
            Value::from(format!("{}{}{}", spaces(0)?, text(first), spaces(1)?))
        }
        "printf" => Value::from(printf(&text(first), rest)),
        other => return Err(wrong(format!("function {other:?} not defined"))),
    })
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        Value::Null => 0,
        other => shown(other).len(),
    }
}

/// As Go's `fmt.Sprint`: a space between two that are no text.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&shown(value));
    }
    out
}

fn title(text: &str) -> String {
    let mut before = ' ';
    text.chars()
        .flat_map(|c| {
            let first = !before.is_alphanumeric();
            before = c;
            if first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn escaped_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;")
}

fn escaped_query(text: &str) -> String {
    let one = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Of an element that a map of texts does not have it is empty, as Go has it.
fn index(at: &Value, key: &Value) -> Result<Value, String> {
    match (at, key) {
        (Value::Array(items), Value::Number(number)) => {
            count(key).and_then(|n| items.get(n)).cloned().ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Object(map), Value::String(key)) => Ok(match map.get(key) {
            Some(value) => value.clone(),
            None if map.values().all(Value::is_string) => Value::from(""),
            None => Value::Null,
        }),
        (Value::Null, Value::String(_)) => Ok(Value::from("")),
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        (Value::Array(_) | Value::Object(_), key) => Err(format!("cannot index with {}", shown(key))),
        (other, _) => Err(format!("can't index item of {}", shown(other))),
    }
}

/// `slice X FROM [TO]`, of a list or a text.
fn slice(of: &Value, ends: &[Value]) -> Result<Value, String> {
    let end = |at: usize, default: usize| match ends.get(at) {
        None => Some(default),
        Some(value) => count(value),
    };
    let range = |length: usize| {
        let (from, to) = (end(0, 0), end(1, length));
        let fits = from.zip(to).filter(|(from, to)| from <= to && *to <= length && ends.len() <= 2);
        fits.ok_or_else(|| format!("index out of range: {}", ends.iter().map(shown).collect::<Vec<_>>().join(":")))
    };
    match of {
        Value::Array(items) => range(items.len()).map(|(from, to)| Value::from(items[from..to].to_vec())),
        Value::String(text) => {
            let (from, to) = range(text.len())?;
            text.get(from..to).map(Value::from).ok_or_else(|| "cannot cut a character".to_owned())
        }
        other => Err(format!("can't slice item of {}", shown(other))),
    }
}

/// Whether it is so; the error is empty if something is missing.
fn compare(name: &str, first: &Value, rest: &[Value]) -> Result<bool, &'static str> {
    let second = rest.first().ok_or("")?;
    let order = |other: &Value| order(first, other).ok_or("incompatible types for comparison");
    match name {
        "eq" => rest.iter().try_fold(false, |is, other| equal(first, other).map(|equal| is || equal)),
        "ne" => equal(first, second).map(|equal| !equal),
        "lt" => order(second).map(Ordering::is_lt),
        "le" => order(second).map(Ordering::is_le),
        "gt" => order(second).map(Ordering::is_gt),
        _ => order(second).map(Ordering::is_ge),
    }
}

fn equal(one: &Value, other: &Value) -> Result<bool, &'static str> {
    match (one, other) {
        (Value::Null, other) | (other, Value::Null) => Ok(other.is_null()),
        (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
        _ => order(one, other).map(Ordering::is_eq).ok_or("incompatible types for comparison"),
    }
}

fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
        },
        _ => None,
    }
}

/// `.Label "NAME"` of a list's row, whose labels are `NAME=VALUE,NAME=VALUE`.
pub(super) fn label(dot: &Value, arguments: &[Value]) -> Result<Value, Wrong> {
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

/// Whether a condition holds.
pub(super) fn truth(value: &Value) -> bool {
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
pub(super) fn shown(value: &Value) -> String {
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
