//! `printf`, as Go's fmt has it for texts, numbers and truths.

use serde_json::Value;

use super::functions::shown;

/// Widest field: nobody's terminal is wider.
const WIDEST: usize = 4096;

/// What stands between `%` and its verb.
#[derive(Default)]
struct Spec {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// The text; what does not fit is told in it, as Go does.
pub(super) fn printf(format: &str, arguments: &[Value]) -> String {
    let (mut out, mut next) = (String::new(), 0);
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (spec, after) = spec(after);
        let mut chars = after.chars();
        let verb = chars.next();
        rest = chars.as_str();
        match verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => {
                match arguments.get(next) {
                    None => out.push_str(&format!("%!{verb}(MISSING)")),
                    Some(value) => out.push_str(&padded(one(verb, value, &spec), &spec)),
                }
                next += 1;
            }
        }
    }
    out.push_str(rest);
    if let Some(extra) = arguments.get(next..).filter(|extra| !extra.is_empty()) {
        let extra: Vec<String> = extra.iter().map(|value| format!("{}={}", kind(value), shown(value))).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn spec(text: &str) -> (Spec, &str) {
    let mut spec = Spec::default();
    let flags = text.find(|c| !matches!(c, '-' | '0' | '+' | ' ' | '#')).unwrap_or(text.len());
    for flag in text[..flags].chars() {
        match flag {
            '-' => spec.left = true,
            '0' => spec.zeros = true,
            '+' => spec.plus = true,
            _ => {}
        }
    }
    let (width, rest) = number(&text[flags..]);
    spec.width = width.unwrap_or(0);
    match rest.strip_prefix('.') {
        None => (spec, rest),
        Some(rest) => {
            let (precision, rest) = number(rest);
            spec.precision = Some(precision.unwrap_or(0));
            (spec, rest)
        }
    }
}

fn number(text: &str) -> (Option<usize>, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..digits].parse().ok().map(|n: usize| n.min(WIDEST)), &text[digits..])
}

fn one(verb: char, value: &Value, spec: &Spec) -> String {
    let cut = |text: String| match spec.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text,
    };
    let sign = |negative: bool| if spec.plus && !negative { "+" } else { "" };
    match (verb, value) {
        ('v', value) => shown(value),
        ('s', Value::Array(_) | Value::Object(_) | Value::String(_)) => cut(shown(value)),
        ('q', Value::String(text)) => format!("{:?}", cut(text.clone())),
        ('t', Value::Bool(_)) => shown(value),
        ('d', Value::Number(number)) if number.is_i64() || number.is_u64() => {
            format!("{}{number}", sign(number.as_i64().is_some_and(|n| n < 0)))
        }
        ('x' | 'X', Value::Number(number)) if number.is_u64() => {
            let hex = format!("{:x}", number.as_u64().unwrap_or(0));
            if verb == 'X' { hex.to_uppercase() } else { hex }
        }
        ('f' | 'F', Value::Number(number)) => {
            let float = number.as_f64().unwrap_or(0.0);
            format!("{}{float:.*}", sign(float < 0.0), spec.precision.unwrap_or(6))
        }
        _ => format!("%!{verb}({}={})", kind(value), shown(value)),
    }
}

fn padded(text: String, spec: &Spec) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    match (spec.left, spec.zeros) {
        (true, _) => text + &" ".repeat(missing),
        (false, true) => match text.strip_prefix(['-', '+']) {
            Some(digits) => format!("{}{}{digits}", &text[..1], "0".repeat(missing)),
            None => "0".repeat(missing) + &text,
        },
        (false, false) => " ".repeat(missing) + &text,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_go_prints() {
        for (format, arguments, text) in [
            ("%s-%v", json!(["a", 1]), "a-1"),
            ("%5s|%-5s|%.2s", json!(["a", "b", "cde"]), "    a|b    |cd"),
            ("%05d %+d %x %X", json!([42, 7, 255, 255]), "00042 +7 ff FF"),
            ("%.1f %t 100%%", json!([0.25, true]), "0.2 true 100%"),
            ("%06d", json!([-42]), "-00042"),
            ("%d", json!(["x"]), "%!d(string=x)"),
            ("%s", json!([]), "%!s(MISSING)"),
            ("a", json!([1]), "a%!(EXTRA int=1)"),
            ("%", json!([]), "%!(NOVERB)"),
            ("%q", json!(["a\"b"]), "\"a\\\"b\""),
        ] {
            assert_eq!(printf(format, arguments.as_array().unwrap()), text, "{format}");
        }
        assert_eq!(printf("%99999999d", &[json!(1)]).len(), WIDEST);
    }
}
