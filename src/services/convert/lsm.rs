//! AppArmor profiles and SELinux labels, as clients ask for them. Whether the node has them is the engine's to say.

use api::runtime::{self as cri, security_profile::ProfileType};
use model::container::{AppArmorSpec, SelinuxSpec};

use super::{Result, invalid, known, security::old_profile, shown};

/// Longer names are no names of profiles or labels.
const MAX: usize = 4096;

/// The field wins over its deprecated twin, which is text: `unconfined`, `runtime/default`, `localhost/NAME`. Nothing said
/// is `None`.
pub(super) fn apparmor(field: &str, profile: Option<&cri::SecurityProfile>, deprecated: &str) -> Result<Option<AppArmorSpec>> {
    let (field, kind, name) = match (profile, deprecated) {
        (Some(profile), _) => {
            let field = format!("{field}.apparmor");
            let kind = known(format_args!("{field}.profile_type"), profile.profile_type)?;
            // Kubelets write the prefix of the old form here as well.
            let name = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
            (field, kind, name)
        }
        (None, "") => return Ok(None),
        (None, text) => {
            let field = format!("{field}.apparmor_profile");
            let (kind, name) = old_profile(&field, text, ProfileType::Unconfined)?;
            (field, kind, name)
        }
    };
    match kind {
        ProfileType::Unconfined => Ok(Some(AppArmorSpec::Unconfined)),
        ProfileType::RuntimeDefault => Ok(Some(AppArmorSpec::RuntimeDefault)),
        ProfileType::Localhost if name.is_empty() => Err(invalid(field, "a profile of the host needs a name")),
        ProfileType::Localhost if name.len() > MAX || name.chars().any(char::is_control) => {
            Err(invalid(field, format_args!("{}: not the name of a profile", shown(name))))
        }
        ProfileType::Localhost => Ok(Some(AppArmorSpec::Localhost(name.to_owned()))),
    }
}

/// The parts of a label that are said; none is `None`.
pub(super) fn selinux(field: &str, options: Option<&cri::SeLinuxOption>) -> Result<Option<SelinuxSpec>> {
    let Some(options) = options.filter(|options| **options != cri::SeLinuxOption::default()) else { return Ok(None) };
    let field = format!("{field}.selinux_options");
    for (name, text) in [("user", &options.user), ("role", &options.role), ("type", &options.r#type)] {
        let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        if text.len() > MAX || !text.bytes().all(word) {
            return Err(invalid(format_args!("{field}.{name}"), format_args!("{}: not the {name} of a label", shown(text))));
        }
    }
    if !options.level.is_empty() && !is_level(&options.level) {
        let why = format!("{}: not a level such as s0 or s0:c1,c2", shown(&options.level));
        return Err(invalid(format_args!("{field}.level"), why));
    }
    Ok(Some(SelinuxSpec {
        user: options.user.clone(),
        role: options.role.clone(),
        kind: options.r#type.clone(),
        level: options.level.clone(),
    }))
}

/// `s0`, `s0-s1`, `s0:c1,c5.c9`, and a range of two such.
fn is_level(text: &str) -> bool {
    let number = |text: &str, letter: char| {
        text.strip_prefix(letter).is_some_and(|n| !n.is_empty() && n.len() <= 5 && n.bytes().all(|c| c.is_ascii_digit()))
    };
    let category = |text: &str| text.split_once('.').map_or_else(|| number(text, 'c'), |(a, b)| number(a, 'c') && number(b, 'c'));
    let one = |text: &str| {
        let (sensitivity, categories) = text.split_once(':').map_or((text, None), |(s, c)| (s, Some(c)));
        number(sensitivity, 's') && categories.is_none_or(|list| list.split(',').all(category))
    };
    text.len() <= MAX && text.split_once('-').map_or_else(|| one(text), |(low, high)| one(low) && one(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
        Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
    }

    #[test]
    fn profiles_in_both_forms() {
        let named = |name: &str| Some(AppArmorSpec::Localhost(name.into()));
        for (new, old, expected) in [
            (None, "", None),
            (None, "unconfined", Some(AppArmorSpec::Unconfined)),
            (None, "runtime/default", Some(AppArmorSpec::RuntimeDefault)),
            (None, "localhost/p", named("p")),
            (profile(ProfileType::RuntimeDefault, ""), "localhost/p", Some(AppArmorSpec::RuntimeDefault)),
            (profile(ProfileType::Unconfined, ""), "localhost/p", Some(AppArmorSpec::Unconfined)),
            (profile(ProfileType::Localhost, "q"), "unconfined", named("q")),
            (profile(ProfileType::Localhost, "localhost/q r"), "", named("q r")),
        ] {
            assert_eq!(apparmor("f", new.as_ref(), old).unwrap(), expected, "{old}");
        }
        for (new, old) in [
            (None, "localhost/"),
            (None, "p"),
            (profile(ProfileType::Localhost, ""), ""),
            (profile(ProfileType::Localhost, "localhost/"), ""),
            (profile(ProfileType::Localhost, "a\nb"), ""),
        ] {
            assert!(apparmor("f", new.as_ref(), old).unwrap_err().to_string().starts_with("f.apparmor"), "{old}");
        }
    }

    #[test]
    fn labels_have_a_form() {
        for level in ["", "s0", "s0:c4,c5", "s0-s0:c0.c1023", "s0:c1.c3,c9", "s15:c0,c1-s15:c0,c1"] {
            let options = cri::SeLinuxOption { user: "u".into(), level: level.into(), ..Default::default() };
            assert_eq!(selinux("f", Some(&options)).unwrap().unwrap().level, level);
        }
        for level in ["s0,c4,c5", "s", "c1", "s0:", "s0:c", "s0:c1,", "s0:c1.", "s0-", "s0 ", "s999999", "s0:c1;c2"] {
            let options = cri::SeLinuxOption { level: level.into(), ..Default::default() };
            assert!(selinux("f", Some(&options)).unwrap_err().to_string().starts_with("f.selinux_options.level: "), "{level}");
        }
        let colon = cri::SeLinuxOption { r#type: "a:b".into(), ..Default::default() };
        assert!(selinux("f", Some(&colon)).unwrap_err().to_string().starts_with("f.selinux_options.type: "));
        assert_eq!(selinux("f", Some(&Default::default())).unwrap(), None);
        assert_eq!(selinux("f", None).unwrap(), None);
    }
}
