//! Who a container's process runs as: the `USER` grammar of images, CRI's fields over it, groups (R11, R12).
//!
//! What looks like a number is a number or an error, and never a name: otherwise an image could have a user called
//! `4294967296` with uid 0 (CVE-2026-46680).

use std::os::fd::BorrowedFd;

use model::container::{ContainerSpec, ResolvedUser, SecuritySpec, UserSpec};

use super::{
    error::{Error, cut},
    passwd::{Databases, GROUP, MAX_GROUPS, MAX_ID, PASSWD, User},
};

/// The longest name of a user or group (LOGIN_NAME_MAX of Linux).
const MAX_NAME: usize = 256;

/// A user or group as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Id(u32),
    Name(String),
}

/// Resolves the user of a container in its root file system.
///
/// # Errors
/// A user or group that cannot be or is not there; a group without a user; unreadable databases.
pub(crate) fn resolve(spec: &ContainerSpec, image_user: &str, rootfs: BorrowedFd<'_>) -> Result<ResolvedUser, Error> {
    let security = &spec.security;
    let own = spec.own.as_ref();
    let image_user = own.map(|own| own.user.as_str()).filter(|user| !user.is_empty()).unwrap_or(image_user);
    let (user, group) = wanted(security, image_user)?;
    let group_is_given = group.is_some();
    let databases = Databases::new(rootfs)?;
    let entry = match &user {
        Who::Id(wanted) => databases.user(|_, uid| uid == *wanted)?,
        Who::Name(wanted) => Some(named(&databases, wanted)?),
    };
    let uid = match (&user, &entry) {
        (Who::Id(uid), _) => *uid,
        (Who::Name(_), entry) => entry.as_ref().map_or(0, |entry| entry.uid),
    };
    let gid = match group {
        Some(Who::Id(gid)) => gid,
        Some(Who::Name(name)) => {
            databases.group(&name)?.ok_or_else(|| Error::NoName { kind: "group", name: cut(&name), file: GROUP })?
        }
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // As docker has it: who names a group has that one alone. CRI's runtimes add those of the user all the same.
    let member = entry.as_ref().filter(|_| own.is_none() || !group_is_given);
    let mut groups = groups(security, gid, member, &databases)?;
    for group in own.map_or(&[][..], |own| &own.groups) {
        let gid = match part(group, group)? {
            Who::Id(gid) => gid,
            Who::Name(name) => {
                databases.group(&name)?.ok_or_else(|| Error::NoName { kind: "group", name: cut(&name), file: GROUP })?
            }
        };
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(ResolvedUser { uid, gid, groups, home: home(entry.as_ref())? })
}

fn named(databases: &Databases, wanted: &str) -> Result<User, Error> {
    let found = databases.user(|name, _| name == wanted)?;
    found.ok_or_else(|| Error::NoName { kind: "user", name: cut(wanted), file: PASSWD })
}

/// What is asked for: the client's word before the image's.
fn wanted(security: &SecuritySpec, image_user: &str) -> Result<(Who, Option<Who>), Error> {
    let (user, group) = match &security.user {
        UserSpec::Image => {
            if security.group.is_some() {
                return Err(Error::User { user: cut(image_user), why: "a group is given (run_as_group) without a user" });
            }
            parse(image_user)?
        }
        UserSpec::Id(uid) => (Who::Id(limited(*uid)?), None),
        UserSpec::Name(name) => (part(name, name)?, None),
    };
    match security.group {
        Some(gid) => Ok((user, Some(Who::Id(limited(gid)?)))),
        None => Ok((user, group)),
    }
}

/// `USER` of an image: `uid`, `name`, each with `:gid` or `:group`; empty is root.
fn parse(text: &str) -> Result<(Who, Option<Who>), Error> {
    if text.is_empty() {
        return Ok((Who::Id(0), None));
    }
    match text.split_once(':') {
        None => Ok((part(text, text)?, None)),
        Some((user, group)) => Ok((part(user, text)?, Some(part(group, text)?))),
    }
}

fn part(text: &str, whole: &str) -> Result<Who, Error> {
    let refuse = |why| Err(Error::User { user: cut(whole), why });
    if text.is_empty() {
        return refuse("has an empty part");
    }
    if text.len() > MAX_NAME {
        return refuse("is longer than 256 bytes");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            _ if text.len() > 1 && text.starts_with('0') => refuse("is a number with leading zeros"),
            Ok(id) if id <= MAX_ID => Ok(Who::Id(id)),
            Ok(_) | Err(_) => refuse("is a number above 2147483647"),
        };
    }
    let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '$' | '+');
    if !text.chars().all(name_char) || text.starts_with(['-', '+', '.', '@', '$']) {
        return refuse("is neither a number nor a name of letters, digits, `_`, `-`, `.`, `@`, `$`, `+`");
    }
    let hexadecimal = |c: char| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X' | 'o' | 'O' | '_' | '.' | '-' | '+');
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(hexadecimal) {
        return refuse("looks like a number but is none");
    }
    Ok(Who::Name(text.to_owned()))
}

fn limited(id: u32) -> Result<u32, Error> {
    if id <= MAX_ID { Ok(id) } else { Err(Error::User { user: id.to_string(), why: "is a number above 2147483647" }) }
}

/// The primary group first, then the client's, then those of the image's /etc/group unless told `Strict` (KEP-3619).
/// Never those of the engine: the list is complete.
fn groups(security: &SecuritySpec, gid: u32, entry: Option<&User>, databases: &Databases) -> Result<Vec<u32>, Error> {
    let mut groups = vec![gid];
    for group in &security.supplemental_groups {
        groups.push(limited(*group)?);
    }
    if let Some(user) = entry.filter(|_| !security.supplemental_groups_strict) {
        groups.extend(databases.groups_of(&user.name)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    if groups.len() > MAX_GROUPS {
        return Err(Error::User { user: format!("{gid}"), why: "has more than 65536 groups" });
    }
    Ok(groups)
}

/// The home directory for `HOME`; `/` where the image says none.
fn home(entry: Option<&User>) -> Result<String, Error> {
    let home = entry.map_or("", |entry| entry.home.as_str());
    if home.is_empty() {
        return Ok("/".to_owned());
    }
    if home.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(Error::DatabaseForm { file: PASSWD, why: "has a home directory with control characters" });
    }
    Ok(home.to_owned())
}

#[cfg(test)]
mod tests;
