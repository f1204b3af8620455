//! Credentials: given, or as `creel login`, `docker login` or `podman login` has left them behind.

use std::{env, fs, path::PathBuf};

use api::creel::Credentials;
use serde_json::Value;

use crate::{
    error::Error,
    login::{Store, stored},
    name,
};

/// Who to be for this image; `None`: nobody.
pub(crate) fn credentials(given: Option<&str>, image: &str) -> Result<Option<Credentials>, Error> {
    match given {
        Some(text) => match text.split_once(':') {
            Some((username, password)) if !username.is_empty() => Ok(Some(plain(username, password))),
            // The text is a secret, or half of one: it is not repeated.
            _ => Err(Error::Option { option: "--creds", value: "***".into(), why: "not USER:PASSWORD".into() }),
        },
        None => kept(image),
    }
}

fn plain(username: &str, password: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: password.to_owned(), identity_token: String::new() }
}

/// In docker's file or helpers, else in podman's file.
fn kept(image: &str) -> Result<Option<Credentials>, Error> {
    let registry = name::registry(image);
    // Without a home there is nothing that could have been left behind.
    if let Ok(store) = Store::open()
        && let Some(found) = store.get(registry)?
    {
        return Ok(Some(found));
    }
    let text = podman_files().into_iter().find_map(|path| fs::read_to_string(path).ok());
    Ok(text.and_then(|text| of_podman(&text, image)))
}

/// containers-auth.json(5).
fn podman_files() -> Vec<PathBuf> {
    let given = env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("containers/auth.json"));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/auth.json"));
    [given, runtime, home].into_iter().flatten().collect()
}

/// A key may be a registry or a part of a repository's path; the longest that fits counts.
fn of_podman(text: &str, image: &str) -> Option<Credentials> {
    let config: Value = serde_json::from_str(text).ok()?;
    let registry = name::registry(image);
    let rest = image.strip_prefix(registry).unwrap_or(image).trim_start_matches('/');
    let path = rest.split('@').next().unwrap_or(rest);
    let mut key = format!("{registry}/{}", path.rsplit_once(':').map_or(path, |(path, _)| path));
    loop {
        if let Some(found) = config.get("auths")?.get(&key).and_then(stored) {
            return Some(found);
        }
        key.truncate(key.rfind('/')?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_key_of_podman_s_file_counts() {
        let text = r#"{"auths": {"r.example:5000": {"auth": "YTpi"}, "r.example:5000/team": {"auth": "YzpkOmU="}, "docker.io": {"auth": "!"}}}"#;
        assert_eq!(of_podman(text, "r.example:5000/team/x:1"), Some(plain("c", "d:e")));
        assert_eq!(of_podman(text, "r.example:5000/other"), Some(plain("a", "b")));
        assert_eq!(of_podman(text, "busybox"), None);
        assert_eq!(of_podman("{}", "busybox"), None);
    }

    #[test]
    fn given_credentials_are_not_repeated_in_errors() {
        assert_eq!(credentials(Some("u:p"), "x").unwrap(), Some(plain("u", "p")));
        let error = credentials(Some("secret"), "x").unwrap_err();
        assert!(!error.chain().contains("secret"));
    }
}
