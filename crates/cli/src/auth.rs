//! Credentials: given, or as `docker login` has left them behind.

use std::{collections::HashMap, env, fs, path::PathBuf};

use api::creel::Credentials;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::error::Error;

/// docker's configuration; the rest of it is not ours.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// Who to be for this image; `None`: nobody.
pub(crate) fn credentials(given: Option<&str>, image: &str) -> Result<Option<Credentials>, Error> {
    match given {
        Some(text) => match text.split_once(':') {
            Some((username, password)) if !username.is_empty() => Ok(Some(plain(username, password))),
            // The text is a secret, or half of one: it is not repeated.
            _ => Err(Error::Option { option: "--creds", value: "***".into(), why: "not USER:PASSWORD".into() }),
        },
        None => Ok(docker_config().and_then(|text| of_docker(&text, image))),
    }
}

fn plain(username: &str, password: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: password.to_owned(), identity_token: String::new() }
}

fn docker_config() -> Option<String> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    fs::read_to_string(dir.join("config.json")).ok()
}

fn of_docker(config: &str, image: &str) -> Option<Credentials> {
    let config: DockerConfig = serde_json::from_str(config).ok()?;
    let auth = registry_keys(image).iter().find_map(|key| config.auths.get(key))?;
    if !auth.identitytoken.is_empty() {
        return Some(Credentials { identity_token: auth.identitytoken.clone(), ..Credentials::default() });
    }
    let decoded = String::from_utf8(STANDARD.decode(auth.auth.trim_end_matches('\0')).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(plain(username, password))
}

/// Under which names docker keeps a registry.
fn registry_keys(image: &str) -> Vec<String> {
    let host = match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    };
    match host {
        "docker.io" | "index.docker.io" => {
            ["https://index.docker.io/v1/", "docker.io", "index.docker.io"].map(str::to_owned).to_vec()
        }
        host => vec![host.to_owned(), format!("https://{host}"), format!("https://{host}/v1/"), format!("http://{host}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_login_left_behind() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnE="}, "r.example:5000": {"identitytoken": "t"},
            "broken.example": {"auth": "!"}}, "credsStore": "x"}"#;
        assert_eq!(of_docker(config, "busybox").unwrap(), plain("u", "p:q"));
        assert_eq!(of_docker(config, "docker.io/library/busybox").unwrap().username, "u");
        assert_eq!(of_docker(config, "r.example:5000/a/b:c").unwrap().identity_token, "t");
        assert_eq!(of_docker(config, "broken.example/a"), None);
        assert_eq!(of_docker(config, "other.example/a"), None);
        assert_eq!(of_docker("not json", "busybox"), None);
    }

    #[test]
    fn given_credentials_are_not_repeated_in_errors() {
        assert_eq!(credentials(Some("u:p"), "x").unwrap(), Some(plain("u", "p")));
        let error = credentials(Some("secret"), "x").unwrap_err();
        assert!(!error.chain().contains("secret"));
    }
}
