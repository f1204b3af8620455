//! The client against registries good and bad. The names of the tests are the ids of the threat model and fault list.

mod auth;
mod broken;
mod farm;
mod hostile;
mod proxy;
mod pull;
mod push;
mod real;
mod tls;

use std::{sync::Arc, time::Duration};

use model::ImageRef;

use crate::{Config, Credentials, Error, Platform, Registry, Resolved, Secret, Timeouts};

/// Long deadlines: what a test waits for comes, however busy the machine is.
fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(20),
        headers: Duration::from_secs(20),
        document: Duration::from_secs(8),
        progress: Duration::from_secs(20),
        idle: Duration::from_secs(20),
        retries: 5,
        backoff: Duration::from_millis(4),
        retry_after: Duration::from_millis(40),
    }
}

fn config(directory: &tempfile::TempDir) -> Config {
    let platform = Platform::parse("linux/amd64").unwrap();
    Config { timeouts: timeouts(), platform, ..Config::new(directory.path()) }
}

/// For silence in the middle of an answer: what a test waits for does not come.
fn impatient() -> (tempfile::TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory);
    config.timeouts.progress = Duration::from_millis(400);
    let registry = Registry::new(config);
    (directory, registry)
}

/// A registry client without any files.
fn bare() -> (tempfile::TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(config(&directory));
    (directory, registry)
}

/// Writes HOST/hosts.toml.
fn hosts(directory: &tempfile::TempDir, host: &str, text: &str) {
    let directory = directory.path().join(host);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
}

fn name(text: &str) -> ImageRef {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn password() -> Credentials {
    Credentials { username: "user".into(), password: Some(Secret::new("p4ssw0rd")), ..Credentials::default() }
}

async fn resolve(registry: &Registry, image: &str, credentials: &Credentials) -> Result<Resolved, Error> {
    registry.resolve(&name(image), credentials).await
}

/// All layers, one after the other.
async fn layers(registry: &Registry, resolved: &Resolved) -> Result<Vec<bytes::Bytes>, Error> {
    let mut all = Vec::new();
    for layer in &resolved.layers {
        all.push(registry.blob(&resolved.source, layer).await?.read_all(1 << 30).await?);
    }
    Ok(all)
}

/// An error's whole text.
fn told(error: &Error) -> String {
    crate::failure::chain(error)
}

/// What the engine will do with these from tasks of its own.
#[test]
fn futures_and_values_may_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<Registry>();
    shareable::<Resolved>();
    shareable::<Error>();
    let (_directory, registry) = bare();
    let image = name("localhost:1/x");
    sendable(registry.resolve(&image, &Credentials::anonymous()));
    sendable(async {
        let source: Arc<crate::Source> = Arc::new(registry.source(&image, &Credentials::anonymous()).await.unwrap());
        let blob = model::Descriptor { media_type: model::MediaType::OciLayer, digest: model::Digest::Sha256([0; 32]), size: 0 };
        let mut reader = registry.blob(&source, &blob).await.unwrap();
        reader.next().await
    });
}
