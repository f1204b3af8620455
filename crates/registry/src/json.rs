//! JSON where a key said twice is an error: two readers of one document must not see two documents (CVE-2021-41190's
//! family). serde keeps the last of two equal keys in maps and skips unknown ones unseen, so this is a pass of its own.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// More keys in one object than any manifest has; bounds the memory for the keys that are remembered.
const MOST_KEYS: usize = 4096;

/// Checks that bytes are one JSON value in which no object has the same key twice.
pub(crate) fn check_unique_keys(bytes: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Unique>(bytes).map(|_| ())
}

struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk).map(|()| Self)
    }
}

struct Walk;

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalar {
    ($($visit:ident: $type:ty),*) => { $( fn $visit<E: Error>(self, _: $type) -> Result<(), E> { Ok(()) } )* };
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalar!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if seen.len() == MOST_KEYS {
                return Err(A::Error::custom(format_args!("more than {MOST_KEYS} keys in one object")));
            }
            if seen.contains(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("duplicate key {shown:?}")));
            }
            seen.insert(key);
            entries.next_value_seed(Walk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_is_refused_at_any_depth() {
        check_unique_keys(br#"{"a":[1,-2,3.5,"x",null,true,{"b":{"a":1}}],"b":{}}"#).unwrap();
        for (bad, why) in [
            (r#"{"a":1,"a":1}"#, "duplicate key"),
            (r#"{"x":[{"y":{"a":1,"\u0061":2}}]}"#, "duplicate key"),
            (r#"{"a":1} {"#, "trailing"),
            ("", "EOF"),
        ] {
            let error = check_unique_keys(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(check_unique_keys(deep.as_bytes()).unwrap_err().to_string().contains("recursion"));
        let wide: Vec<String> = (0..=MOST_KEYS).map(|n| format!("\"{n}\":0")).collect();
        assert!(check_unique_keys(format!("{{{}}}", wide.join(",")).as_bytes()).is_err());
    }
}
