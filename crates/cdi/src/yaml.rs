//! The YAML that specifications are written in: one document of plain maps, lists and scalars, given to serde.
//!
//! Anchors, aliases and tags are refused: no vendor's tool writes them, and what they expand to has no bounds. What a
//! scalar is follows from the field that it is for, as in the reference implementation: `name: 0` is the text "0".

use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::{
    self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor,
    value::{MapDeserializer, SeqDeserializer},
};

/// Deeper than any specification goes, less deep than a stack.
const DEEPEST: usize = 16;
/// Scalars, lists and maps of one document.
const MOST_NODES: usize = 200_000;

/// Why a text is not what it should be.
#[derive(Debug)]
pub(crate) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// Reads a document.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut reader = Reader { parser: Parser::new_from_str(text), left: MOST_NODES };
    T::deserialize(reader.document()?)
}

#[derive(Debug)]
enum Node {
    /// Whether it stood without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    left: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>, Error> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(Error(error.to_string())),
            None => Err(Error("ends too early".to_owned())),
        }
    }

    fn document(&mut self) -> Result<Node, Error> {
        loop {
            match self.next()? {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => return Err(Error("is empty".to_owned())),
                event => {
                    let node = self.node(event, 0)?;
                    return self.end().map(|()| node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        loop {
            match self.next()? {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd | Event::Nothing => {}
                _ => return Err(Error("has more than one document".to_owned())),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Node, Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error("has too many entries".to_owned()))?;
        if depth > DEEPEST {
            return Err(Error("is too deep".to_owned()));
        }
        match event {
            Event::Scalar(_, _, 1.., _) | Event::SequenceStart(1.., _) | Event::MappingStart(1.., _) | Event::Alias(_) => {
                Err(Error("has an anchor or alias".to_owned()))
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err(Error("has a tag".to_owned()))
            }
            Event::Scalar(text, style, ..) => Ok(Node::Scalar(text.into_owned(), style == ScalarStyle::Plain)),
            Event::SequenceStart(..) => self.list(depth),
            Event::MappingStart(..) => self.map(depth),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Err(Error("ends too early".to_owned())),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, Error> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(list)),
                event => list.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, Error> {
        let mut map = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Node::Map(map)),
                event => self.node(event, depth + 1)?,
            };
            let Node::Scalar(key, _) = key else { return Err(Error("has a key that is not a text".to_owned())) };
            let event = self.next()?;
            map.push((key, self.node(event, depth + 1)?));
        }
    }
}

impl Node {
    fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Scalar(..) => "a scalar",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// Numbers as Go reads them: also `0x`, `0o` and `0` before octal digits.
    fn number(&self) -> Result<i64, Error> {
        let Self::Scalar(text, true) = self else { return Err(Error(format!("{} is not a number", self.name()))) };
        let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |digits| (true, digits));
        let (digits, radix) = match digits.as_bytes() {
            [b'0', b'x', ..] => (&digits[2..], 16),
            [b'0', b'o', ..] => (&digits[2..], 8),
            [b'0', _, ..] => (&digits[1..], 8),
            _ => (digits, 10),
        };
        let signed = if digits.starts_with(['+', '-']) { None } else { i64::from_str_radix(digits, radix).ok() };
        signed.map(|number| if negative { -number } else { number }).ok_or_else(|| Error(format!("{text:?} is not a number")))
    }
}

impl<'de> IntoDeserializer<'de, Error> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Scalar(text, _) => visitor.visit_string(text),
            Self::List(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter())),
            Self::Map(map) => visitor.visit_map(MapDeserializer::new(map.into_iter())),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(self.number()?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { Self::List(Vec::new()).deserialize_any(visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { Self::Map(Vec::new()).deserialize_any(visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self {
            Self::Scalar(text, true) if matches!(text.as_str(), "true" | "True" | "TRUE") => visitor.visit_bool(true),
            Self::Scalar(text, true) if matches!(text.as_str(), "false" | "False" | "FALSE") => visitor.visit_bool(false),
            other => Err(Error(format!("{} is not true or false", other.name()))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn scalars_are_what_their_field_wants() {
        let texts: BTreeMap<String, String> = from_str("a: 0\nb: \"x: y\"\nc: true\n'd': |\n  two\n  lines\n").unwrap();
        let expected = [("a", "0"), ("b", "x: y"), ("c", "true"), ("d", "two\nlines\n")];
        assert_eq!(texts, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let numbers: Vec<i64> = from_str("[1, -2, 0x10, 0o17, 0666, 0]").unwrap();
        assert_eq!(numbers, [1, -2, 16, 15, 0o666, 0]);
        let options: Vec<Option<bool>> = from_str("- true\n- ~\n-\n- False\n").unwrap();
        assert_eq!(options, [Some(true), None, None, Some(false)]);
        for bad in ["\"1\"", "1.5", "--1", "0-1", "x", "[1]", "99999999999999999999", "08"] {
            assert!(from_str::<i64>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_no_bounds_is_refused() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        let deep = "[".repeat(100_000);
        let wide = format!("[{}]", "x,".repeat(MOST_NODES + 1));
        for (bad, why) in [
            (bomb, "anchor or alias"),
            ("*a", "while parsing node, found unknown anchor"),
            ("!!binary eA==", "a tag"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("", "empty"),
            ("? [a]\n: b\n", "a key that is not a text"),
            (&deep, ""),
            (&wide, "too many"),
        ] {
            let error = from_str::<BTreeMap<String, Vec<String>>>(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
