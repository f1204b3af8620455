//! SELinux labels as text: `user:role:type:level`, where the level may have colons of its own.

use std::fmt;

use model::container::SelinuxSpec;

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

impl Label {
    /// `None`: not a label.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        Some(Self { user: parts.next()?, role: parts.next()?, kind: parts.next()?, level: parts.next()? })
    }

    /// This label with what was said laid over it.
    pub(super) fn with(mut self, said: Option<&SelinuxSpec>) -> Self {
        let Some(said) = said else { return self };
        for (part, said) in [
            (&mut self.user, &said.user),
            (&mut self.role, &said.role),
            (&mut self.kind, &said.kind),
            (&mut self.level, &said.level),
        ] {
            if !said.is_empty() {
                part.clone_from(said);
            }
        }
        self
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_laid_over() {
        let label = Label::parse("system_u:system_r:container_t:s0:c1,c2").unwrap();
        assert_eq!((label.kind.as_str(), label.level.as_str()), ("container_t", "s0:c1,c2"));
        assert_eq!(label.to_string(), "system_u:system_r:container_t:s0:c1,c2");
        let said = SelinuxSpec { kind: "x_t".into(), level: "s0".into(), ..SelinuxSpec::default() };
        assert_eq!(label.with(Some(&said)).to_string(), "system_u:system_r:x_t:s0");
        assert_eq!(Label::parse("a:b:c"), None);
    }
}
