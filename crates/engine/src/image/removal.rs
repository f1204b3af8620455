//! What `rmi` may take away: docker's rules, as one decision over names and users of an image. Pure.

use std::fmt;

use model::{At, ContainerId, ErrorKind, ImageRef};
use store::NamedImage;

/// How an image was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By one of its names.
    Name(ImageRef),
    /// By its id or the beginning of it.
    Id,
}

/// A container of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) container: ContainerId,
    /// It runs or is about to; else it has ended.
    pub(crate) running: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Names to take away, in the order to tell them.
    pub(crate) untag: Vec<String>,
    /// The image goes too.
    pub(crate) delete: bool,
}

/// Whether a refusal can be overruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    Given,
    NotGiven,
}

/// Why nothing is removed; docker's own words, which scripts look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Running { image: String, container: ContainerId },
    Stopped { image: String, container: ContainerId },
    Names { image: String },
    Named { name: String, image: String, container: ContainerId },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { image, container } => {
                let container = container.short();
                write!(
                    f,
                    "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {container}"
                )
            }
            Self::Stopped { image, container } => {
                let container = container.short();
                write!(
                    f,
                    "conflict: unable to delete {image} (must be forced) - image is being used by stopped container {container}"
                )
            }
            Self::Names { image } => {
                write!(f, "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories")
            }
            Self::Named { name, image, container } => {
                let container = container.short();
                write!(
                    f,
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {image}"
                )
            }
        }
    }
}

impl std::error::Error for Conflict {}

impl Conflict {
    pub(crate) fn kind(&self) -> ErrorKind {
        ErrorKind::FailedPrecondition
    }
}

/// Decides what removing `image`, named as `asked`, takes away.
pub(crate) fn decide(image: &NamedImage, asked: &Asked, users: &[User], force: Force) -> Result<Removal, Conflict> {
    match asked {
        Asked::Name(name) => by_name(image, name, users, force),
        Asked::Id => by_id(image, users, force),
    }
}

fn by_name(image: &NamedImage, name: &ImageRef, users: &[User], force: Force) -> Result<Removal, Conflict> {
    let text = name.to_string();
    let mut untag = vec![text.clone()];
    let repository = name.name();
    let of_repository = |other: &&String| other.parse::<ImageRef>().is_ok_and(|other| other.name() == repository);
    // Digests are a repository's as long as it has a tag; with its last tag they go too.
    let last_tag = matches!(name.at, At::Tag(_)) && !image.tags.iter().filter(|tag| **tag != text).any(|tag| of_repository(&tag));
    if last_tag {
        untag.extend(image.digests.iter().filter(of_repository).cloned());
    }
    let left = image.tags.iter().chain(&image.digests).filter(|name| !untag.contains(name)).count();
    if left > 0 {
        return Ok(Removal { untag, delete: false });
    }
    match users.first() {
        None => Ok(Removal { untag, delete: true }),
        Some(_) if force == Force::Given => Ok(Removal { untag, delete: false }),
        Some(user) => Err(Conflict::Named { name: name.familiar(), image: short(image), container: user.container }),
    }
}

fn by_id(image: &NamedImage, users: &[User], force: Force) -> Result<Removal, Conflict> {
    let shown = short(image);
    if let Some(user) = users.iter().find(|user| user.running) {
        return Err(Conflict::Running { image: shown, container: user.container });
    }
    if force == Force::NotGiven {
        if let Some(user) = users.first() {
            return Err(Conflict::Stopped { image: shown, container: user.container });
        }
        if image.tags.len() > 1 || !one_repository(image) {
            return Err(Conflict::Names { image: shown });
        }
    }
    Ok(Removal { untag: image.tags.iter().chain(&image.digests).cloned().collect(), delete: true })
}

/// All names of an image are of one repository.
fn one_repository(image: &NamedImage) -> bool {
    let mut repositories: Vec<String> =
        image.tags.iter().chain(&image.digests).filter_map(|n| n.parse::<ImageRef>().ok()).map(|n| n.name()).collect();
    repositories.sort();
    repositories.dedup();
    repositories.len() < 2
}

fn short(image: &NamedImage) -> String {
    image.record.id.digest().hex().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use model::{Digest, ImageId};

    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> NamedImage {
        let full = |names: &[&str], at: &str| names.iter().map(|n| format!("r.example/{n}{at}")).collect();
        let record = store::ImageRecord {
            id: ImageId::new(Digest::Sha256([0xab; 32])),
            layers: Vec::new(),
            size: 0,
            created: String::new(),
            os: String::new(),
            architecture: String::new(),
            variant: String::new(),
            defaults: model::container::ImageDefaults::default(),
            pulled_at: 0,
        };
        NamedImage {
            record,
            tags: full(tags, ""),
            digests: full(digests, &format!("@sha256:{}", "0a".repeat(32))),
            documents: Vec::new(),
        }
    }

    fn user(n: u8, running: bool) -> User {
        User { container: ContainerId::from_bytes([n; 32]), running }
    }

    fn name(text: &str) -> Asked {
        Asked::Name(format!("r.example/{text}").parse().unwrap())
    }

    fn told(image: &NamedImage, asked: &Asked, users: &[User], force: Force) -> String {
        match decide(image, asked, users, force) {
            Ok(Removal { untag, delete }) => {
                let names: Vec<&str> =
                    untag.iter().map(|n| n.split('/').next_back().unwrap().split("256:").next().unwrap()).collect();
                format!("{}{}", names.join(" "), if delete { " gone" } else { "" })
            }
            Err(conflict) => conflict.to_string(),
        }
    }

    #[test]
    fn by_name() {
        use Force::{Given, NotGiven};
        let two = image(&["a:1", "a:2"], &["a"]);
        let one = image(&["a:1"], &["a"]);
        let three = image(&["a:1", "b:1"], &["a"]);
        assert_eq!(told(&two, &name("a:1"), &[user(1, true)], NotGiven), "a:1");
        assert_eq!(told(&one, &name("a:1"), &[], NotGiven), "a:1 a@sha gone");
        assert_eq!(told(&three, &name("a:1"), &[], NotGiven), "a:1 a@sha");
        assert_eq!(told(&three, &name("b:1"), &[], NotGiven), "b:1");
        assert_eq!(told(&one, &name("a:1"), &[user(1, true)], Given), "a:1 a@sha");
        let refused = told(&one, &name("a:1"), &[user(0x11, false)], NotGiven);
        assert_eq!(
            refused,
            "conflict: unable to remove repository reference \"r.example/a:1\" (must force) - container 111111111111 is using its referenced image abababababab"
        );
        let digest_only = image(&[], &["a"]);
        assert_eq!(told(&digest_only, &name(&format!("a@sha256:{}", "0a".repeat(32))), &[], NotGiven), "a@sha gone");
    }

    #[test]
    fn by_id() {
        use Force::{Given, NotGiven};
        let one = image(&["a:1"], &["a"]);
        assert_eq!(told(&one, &Asked::Id, &[], NotGiven), "a:1 a@sha gone");
        let refused = |image: &NamedImage, users: &[User], force| told(image, &Asked::Id, users, force);
        let both = [user(0x22, false), user(0x33, true)];
        let running =
            "conflict: unable to delete abababababab (cannot be forced) - image is being used by running container 333333333333";
        assert_eq!(refused(&one, &both, NotGiven), running);
        assert_eq!(refused(&one, &both, Given), running);
        let stopped =
            "conflict: unable to delete abababababab (must be forced) - image is being used by stopped container 222222222222";
        assert_eq!(refused(&one, &both[..1], NotGiven), stopped);
        assert_eq!(refused(&one, &both[..1], Given), "a:1 a@sha gone");
        let many = "conflict: unable to delete abababababab (must be forced) - image is referenced in multiple repositories";
        assert_eq!(refused(&image(&["a:1", "a:2"], &[]), &[], NotGiven), many);
        assert_eq!(refused(&image(&["a:1", "a:2"], &[]), &[], Given), "a:1 a:2 gone");
        assert_eq!(refused(&image(&[], &[]), &[], NotGiven), " gone");
    }
}
