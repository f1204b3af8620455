//! `--format`: tables for people, JSON for programs, Go templates for docker's users.

use std::str::FromStr;

use serde_json::Value;

use crate::{error::Error, output, template::Template};

/// How lists are printed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
    /// A line per row out of a template; with `table` before it under headings.
    Template { template: Template, headed: bool },
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| Template::parse(text).map_err(|e| e.to_string());
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("table ") {
                Some(rest) => Ok(Self::Template { template: parse(rest)?, headed: true }),
                None if text.contains("{{") => Ok(Self::Template { template: parse(text)?, headed: false }),
                None => Err("neither table, json nor a template like '{{.ID}}'".to_owned()),
            },
        }
    }
}

impl Format {
    /// Whether a person reads it.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table)
    }

    /// Prints all of these as `inspect` does: one JSON document, if no template says otherwise.
    pub(crate) fn inspected(&self, found: &[Value]) -> Result<(), Error> {
        match self {
            Self::Table | Self::Json => output::json(&found),
            Self::Template { .. } => self.print(found, String::new),
        }
    }

    /// Prints values by a template or as one JSON document; `table` makes the text for people.
    pub(crate) fn print(&self, values: &[Value], table: impl FnOnce() -> String) -> Result<(), Error> {
        match self {
            Self::Table => output::print(&table()),
            Self::Json => output::json(&values),
            Self::Template { template, headed } => {
                let mut lines = if *headed { vec![template.heading(&heading)] } else { Vec::new() };
                for value in values {
                    lines.push(template.render(value).map_err(|e| Error::Template(e.to_string()))?);
                }
                let columns = |line: &String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
                match lines.split_first() {
                    Some((first, rest)) if *headed => {
                        let head = columns(first);
                        let head: Vec<&str> = head.iter().map(String::as_str).collect();
                        output::print(&output::table(&head, &rest.iter().map(columns).collect::<Vec<_>>()))
                    }
                    _ => output::lines(lines),
                }
            }
        }
    }
}

/// `CreatedSince` → `CREATED SINCE`, `ID` → `ID`.
fn heading(field: &str) -> String {
    let mut out = String::new();
    let mut before = 'A';
    for c in field.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_uppercase());
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_format_can_be() {
        assert!("table".parse::<Format>().unwrap().is_table());
        assert!(matches!("json".parse(), Ok(Format::Json)));
        assert!(matches!("{{.ID}}".parse(), Ok(Format::Template { headed: false, .. })));
        assert!(matches!("table {{.ID}}\\t{{.Size}}".parse(), Ok(Format::Template { headed: true, .. })));
        assert!("yaml".parse::<Format>().is_err());
        assert!("{{.ID".parse::<Format>().is_err());
        assert_eq!((heading("CreatedSince"), heading("ID")), ("CREATED SINCE".to_owned(), "ID".to_owned()));
    }
}
