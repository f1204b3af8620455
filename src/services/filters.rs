//! Filters of lists of volumes and networks, as docker reads them: values of one key are alternatives, all keys must hold, and
//! of labels all must hold.

use std::collections::BTreeMap;

use api::creel::Filter;
use tonic::Status;

use super::status;

/// Most filters of one request.
const MOST: usize = 1000;

/// Filters with known keys.
#[derive(Debug, Default)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// # Errors
    /// A key that is not one of `known`.
    pub(super) fn read(filters: Vec<Filter>, known: &[&str]) -> Result<Self, Status> {
        if filters.len() > MOST {
            return Err(status::bad_field("filters", "more than 1000"));
        }
        let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Filter { key, value } in filters {
            if !known.contains(&key.as_str()) {
                let key: String = key.chars().take(80).collect();
                return Err(Status::invalid_argument(format!("invalid filter '{key}'")));
            }
            read.entry(key).or_default().push(value);
        }
        Ok(Self(read))
    }

    pub(super) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a value is one of the alternatives, or there are none.
    pub(super) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// A key that is true or false.
    ///
    /// # Errors
    /// It is something else, or both.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Status> {
        let read = |value: &String| match value.as_str() {
            "true" | "1" | "True" | "TRUE" | "t" | "T" => Some(true),
            "false" | "0" | "False" | "FALSE" | "f" | "F" => Some(false),
            _ => None,
        };
        let mut answer = None;
        for value in self.values(key) {
            match read(value) {
                Some(flag) if answer.is_none_or(|before| before == flag) => answer = Some(flag),
                _ => {
                    let value: String = value.chars().take(80).collect();
                    return Err(Status::invalid_argument(format!("invalid filter '{key}={value}'")));
                }
            }
        }
        Ok(answer)
    }

    /// `label`: all of them; `label!`: none of them.
    pub(super) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filters: &[(&str, &str)]) -> Filters {
        let filters = filters.iter().map(|(key, value)| Filter { key: (*key).to_owned(), value: (*value).to_owned() });
        Filters::read(filters.collect(), &["label", "label!", "name", "dangling"]).unwrap()
    }

    #[test]
    fn alternatives_labels_and_flags() {
        let labels: BTreeMap<_, _> = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into();
        for (filters, fits) in [
            (vec![], true),
            (vec![("label", "a")], true),
            (vec![("label", "a=1"), ("label", "b")], true),
            (vec![("label", "a=2")], false),
            (vec![("label", "a"), ("label", "c")], false),
            (vec![("label!", "c")], true),
            (vec![("label!", "c"), ("label!", "a=1")], false),
        ] {
            assert_eq!(read(&filters).labels(&labels), fits, "{filters:?}");
        }
        assert!(read(&[("name", "x"), ("name", "y")]).any("name", |name| name == "y"));
        assert!(read(&[]).any("name", |_| false) && !read(&[("name", "x")]).any("name", |name| name == "y"));
        assert_eq!(read(&[("dangling", "true"), ("dangling", "1")]).flag("dangling").unwrap(), Some(true));
        assert_eq!(read(&[]).flag("dangling").unwrap(), None);
        assert!(read(&[("dangling", "true"), ("dangling", "false")]).flag("dangling").is_err());
        let unknown = Filters::read(vec![Filter { key: "x".into(), value: String::new() }], &[]).unwrap_err();
        assert_eq!(unknown.message(), "invalid filter 'x'");
    }
}
