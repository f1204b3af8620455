//! docker's image commands, one after the other as its tutorials have them: every line and every exit code.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use api::runtime as cri;
use serde_json::Value;

use crate::{
    daemon::{Daemon, bin},
    image::{Image, Layer, digest},
    pods,
    registry::Registry,
};

/// `the-password`, as bcrypt keeps it.
const HTPASSWD: &str = "me:$2b$04$uNzzGOVBP5C1LLLWSWNIr.Rexw.Lr/mN06VhjB0BYN5tnQ0vB/rkW\n";

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// A person with a home of their own.
struct Person<'d> {
    daemon: &'d Daemon,
    home: tempfile::TempDir,
}

impl<'d> Person<'d> {
    fn new(daemon: &'d Daemon) -> Self {
        Self { daemon, home: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config.json")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin("creel"));
        command.args(args).env("CREEL_SOCKET", self.daemon.socket()).env("DOCKER_CONFIG", self.home.path());
        for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_DEFAULT_PLATFORM", "CREEL_CREDS"] {
            command.env_remove(name);
        }
        command.env("HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    fn says(&self, args: &[&str]) -> Said {
        said(&self.command(args).output().expect("creel runs"))
    }

    /// The output of a command that succeeds.
    fn ok(&self, args: &[&str]) -> String {
        let said = self.says(args);
        assert_eq!(said.code, 0, "creel {args:?}: {}\n{}", said.err, self.daemon.log());
        said.out
    }

    /// The complaint of a command that fails with exit code 1.
    fn fails(&self, args: &[&str]) -> String {
        let said = self.says(args);
        assert_eq!(said.code, 1, "creel {args:?}: {}{}", said.out, said.err);
        said.err
    }

    fn with_input(&self, args: &[&str], input: &Path) -> Said {
        said(&self.command(args).stdin(fs::File::open(input).unwrap()).output().expect("creel runs"))
    }
}

fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

fn short(id: &str) -> &str {
    &id.trim_start_matches("sha256:")[..12]
}

/// An image of two layers in a registry: the digests of its manifest, config and layers.
struct Upstream {
    registry: Registry,
    manifest: String,
    blobs: Vec<String>,
    diff_ids: Vec<String>,
}

impl Upstream {
    fn new() -> Self {
        let registry = Registry::empty();
        let image = Image::of(&[Layer::busybox().tar(), Layer::new().dir("srv/").file("srv/page", 0o644, b"hello").tar()]);
        let manifest = image.push(&registry, "tutorial/app", "1");
        let blobs = image.layers.iter().map(|blob| digest(blob)).collect();
        Self { manifest, blobs, diff_ids: image.diff_ids.clone(), registry }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.registry.port)
    }

    fn name(&self) -> String {
        format!("{}/tutorial/app", self.host())
    }
}

/// A registry behind TLS and passwords, and the daemon's trust in its certificate.
fn private(daemon: &Daemon) -> (Registry, String) {
    let dir = daemon.dir.path();
    let (key, certificate) = (dir.join("registry.key"), dir.join("registry.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let extra = format!(
        "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: it, path: {}}}\n",
        certificate.display(),
        key.display(),
        dir.join("htpasswd").display()
    );
    let registry = Registry::over(&dir.join("private"), &extra);
    let host = format!("127.0.0.1:{}", registry.port);
    let trust = dir.join("certs.d").join(&host);
    fs::create_dir_all(&trust).unwrap();
    let url = format!("https://{host}");
    fs::write(trust.join("hosts.toml"), format!("server = \"{url}\"\nca = \"{}\"\n", certificate.display())).unwrap();
    (registry, host)
}

/// Search, pull, look, tag, remove, save, load, push, pull back, prune.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_tutorial() {
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let upstream = Upstream::new();
    let id = pulled(&person, &upstream);
    looked_at(&person, &upstream, &id);
    tagged_and_removed(&person, &upstream, &id);
    let (_registry, host) = private(&daemon);
    pushed(&person, &upstream, &id, &host);
    saved_and_loaded(&person, &upstream, &id);
    pruned(&person, &id);
    daemon.finish().await;
}

fn pulled(person: &Person<'_>, upstream: &Upstream) -> String {
    let (name, host) = (upstream.name(), upstream.host());
    let found = person.ok(&["search", &format!("{host}/tutorial")]);
    let row = found.lines().nth(1).unwrap();
    assert!(found.starts_with("NAME") && row.split_whitespace().collect::<Vec<_>>() == [name.as_str(), "0"], "{found}");
    assert_eq!(person.ok(&["search", "--format", "{{.Name}}", &format!("{host}/nothing")]), "");

    let missing = person.fails(&["pull", &format!("{name}:none")]);
    let expected = format!("Error response from daemon: manifest for {name}:none not found: manifest unknown: ");
    assert!(missing.starts_with(&expected), "{missing}");
    let platform = person.fails(&["pull", "--platform", "plan9/mips", &format!("{name}:1")]);
    assert!(platform.contains("no matching manifest for plan9/mips in the manifest list entries"), "{platform}");

    let first = person.ok(&["pull", &format!("{name}:1")]);
    let mut lines: Vec<&str> = first.lines().collect();
    assert_eq!(lines.remove(0), "1: Pulling from tutorial/app");
    let end = format!("Digest: {}\nStatus: Downloaded newer image for {name}:1\n{name}:1\n", upstream.manifest);
    assert!(first.ends_with(&end), "{first}");
    for blob in &upstream.blobs {
        for phase in ["Pulling fs layer", "Pull complete"] {
            assert!(lines.contains(&format!("{}: {phase}", short(blob)).as_str()), "{phase}: {first}");
        }
    }
    let again = person.ok(&["pull", &format!("{name}@{}", upstream.manifest)]);
    let [first, second] = [0, 1].map(|n| short(&upstream.blobs[n]));
    for line in [format!("{first}: Already exists\n"), format!("{second}: Already exists\n")] {
        assert!(again.contains(&line), "{again}");
    }
    assert!(again.contains(&format!("Status: Image is up to date for {name}@{}\n", upstream.manifest)), "{again}");
    let objects = objects(&person.ok(&["pull", "--format", "json", &format!("{name}:1")]));
    assert_eq!(objects[0], serde_json::json!({"id": "1", "status": "Pulling from tutorial/app"}));
    assert!(objects.iter().any(|object| object["id"] == first && object["status"] == "Already exists"), "{objects:?}");
    assert_eq!(objects.last().unwrap()["status"], format!("Status: Image is up to date for {name}:1"));
    assert_eq!(person.ok(&["pull", "-q", &format!("{name}:1")]), format!("{name}:1\n"));
    let all = person.ok(&["pull", "-a", "-q", &name]);
    assert_eq!(all, format!("{name}:1\n"));
    let refused = person.fails(&["pull", "-a", &format!("{name}:1")]);
    assert!(refused.contains("tag can't be used with --all-tags/-a"), "{refused}");
    person.ok(&["image", "inspect", "--format", "{{.Id}}", &format!("{name}:1")]).trim().to_owned()
}

/// The lines of `--format json`.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn looked_at(person: &Person<'_>, upstream: &Upstream, id: &str) {
    let name = upstream.name();
    let table = person.ok(&["images"]);
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    );
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((row[..3].to_vec(), &row[4..6]), (vec![name.as_str(), "1", short(id)], &["years", "ago"][..]), "{table}");
    assert_eq!(person.ok(&["images", "-q"]), format!("{}\n", short(id)));
    assert_eq!(person.ok(&["images", "-q", "--no-trunc", &name]), format!("{id}\n"));
    let digests = person.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}"]);
    assert_eq!(digests, format!("{name}:1@{}\n", upstream.manifest));
    for (filter, shown) in [
        ("dangling=true", false),
        ("dangling=false", true),
        ("reference=*/tutorial/app:1", true),
        ("reference=app", false),
        ("label=none", false),
        ("until=1h", true),
    ] {
        assert_eq!(!person.ok(&["images", "-q", "-f", filter]).is_empty(), shown, "{filter}");
    }
    let none = person.says(&["images", "ls"]);
    assert_eq!((none.code, none.out.lines().count()), (0, 1));
    assert_eq!(none.err, "No images found matching \"ls\": did you mean \"creel image ls\"?\n");
    let tree = person.ok(&["images", "--tree"]);
    let shape = format!("└─ layer {} and 1 more", short(&upstream.diff_ids[0]));
    assert!(tree.starts_with(&shape) && tree.contains(&format!("   └─ {name}:1  {}  frees ", short(id))), "{tree}");

    let inspected: Value = serde_json::from_str(&person.ok(&["image", "inspect", &format!("{name}:1")])).unwrap();
    let image = &inspected[0];
    assert_eq!(image["Id"], id);
    assert_eq!(image["RepoTags"], serde_json::json!([format!("{name}:1")]));
    assert_eq!(image["RepoDigests"], serde_json::json!([format!("{name}@{}", upstream.manifest)]));
    assert_eq!(image["RootFS"], serde_json::json!({"Type": "layers", "Layers": upstream.diff_ids}));
    assert_eq!((&image["Os"], &image["Config"]["Cmd"]), (&"linux".into(), &serde_json::json!(["sh"])));
    let missing = person.says(&["image", "inspect", "none"]);
    assert_eq!((missing.code, missing.out.as_str()), (1, "[]\n"));
    assert!(missing.err.contains("No such image: none:latest"), "{}", missing.err);

    let history = person.ok(&["history", &format!("{name}:1")]);
    let first: Vec<&str> = history.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]);
    assert_eq!(person.ok(&["history", "-q", &format!("{name}:1")]), format!("{}\n<missing>\n", short(id)));
}

fn tagged_and_removed(person: &Person<'_>, upstream: &Upstream, id: &str) {
    let name = upstream.name();
    let one = format!("{name}:1");
    assert_eq!(person.ok(&["tag", &one, "mine"]), "");
    assert_eq!(person.ok(&["tag", short(id), "mine:2"]), "");
    let missing = person.fails(&["tag", "none", "x"]);
    assert_eq!(missing, "Error response from daemon: No such image: none:latest\n");
    let digest = person.fails(&["tag", "mine", &format!("x@{}", upstream.manifest)]);
    assert!(digest.contains("refusing to create a tag with a digest reference"), "{digest}");

    // By id with several names; by one name of several; what is not there.
    let refused = person.fails(&["rmi", short(id)]);
    let conflict =
        format!("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", short(id));
    assert_eq!(refused, format!("Error response from daemon: {conflict}\n"));
    let some = person.says(&["rmi", "mine:2", "none", "mine"]);
    assert_eq!((some.code, some.out.as_str()), (1, "Untagged: mine:2\nUntagged: mine:latest\n"));
    assert_eq!(some.err, "Error response from daemon: No such image: none:latest\n");
    let forced = person.says(&["rmi", "-f", "none"]);
    assert_eq!((forced.code, forced.err.as_str()), (0, "Error response from daemon: No such image: none:latest\n"));

    // The last name takes the image with it: the digest's name, the image, its layers from the top.
    let gone = person.ok(&["rmi", &one]);
    let expected = format!("Untagged: {one}\nUntagged: {name}@{}\nDeleted: {id}\nDeleted: sha256:", upstream.manifest);
    assert!(gone.starts_with(&expected), "{gone}");
    assert!(gone.ends_with(&format!("Deleted: {}\n", upstream.diff_ids[0])), "the lowest layer's chain id is its diff id: {gone}");
    assert_eq!(gone.lines().count(), 5);
    assert_eq!(person.ok(&["images", "-q"]), "");
    // By id, although it has a tag and a digest: both are of one repository.
    person.ok(&["pull", "-q", &one]);
    assert_eq!(person.ok(&["rmi", id]).lines().count(), 5);
    person.ok(&["pull", "-q", &one]);
    person.ok(&["tag", &one, "mine"]);
    assert_eq!(person.ok(&["rmi", "-f", id]).lines().filter(|line| line.starts_with("Untagged: ")).count(), 3);
    person.ok(&["pull", "-q", &one]);
}

fn pushed(person: &Person<'_>, upstream: &Upstream, id: &str, host: &str) {
    let (one, theirs) = (format!("{}:1", upstream.name()), format!("{host}/team/app:1"));
    person.ok(&["tag", &one, &theirs]);
    let unknown = person.says(&["push", &format!("{host}/team/none:1")]);
    assert_eq!(unknown.out, format!("The push refers to repository [{host}/team/none]\n"));
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains(&format!("An image does not exist locally with the tag: {host}/team/none")), "{}", unknown.err);
    let nobody = person.fails(&["push", &theirs]);
    assert!(nobody.contains("401") || nobody.contains("UNAUTHORIZED"), "{nobody}");

    logged_in(person, host);
    let pushed = person.ok(&["push", &theirs]);
    assert!(pushed.starts_with(&format!("The push refers to repository [{host}/team/app]\n")), "{pushed}");
    for layer in &upstream.diff_ids {
        assert!(pushed.contains(&format!("{}: Pushed\n", short(layer))), "{pushed}");
    }
    let end = format!("1: digest: {} size: ", upstream.manifest);
    assert!(pushed.lines().last().unwrap().starts_with(&end), "the digest that was pulled: {pushed}");
    let again = person.ok(&["push", &theirs]);
    assert_eq!(again.lines().filter(|line| line.ends_with(": Layer already exists")).count(), 2, "{again}");
    let told = objects(&person.ok(&["push", "--format", "json", &theirs]));
    assert_eq!(told.last().unwrap()["aux"]["Digest"], upstream.manifest.as_str());
    let layer = serde_json::json!({"id": short(&upstream.diff_ids[0]), "status": "Layer already exists"});
    assert!(told.iter().any(|object| object["id"] == layer["id"] && object["status"] == layer["status"]), "{told:?}");
    let other = format!("{host}/other/app:2");
    person.ok(&["tag", &theirs, &other]);
    let mounted = person.ok(&["push", &other]);
    assert_eq!(mounted.lines().filter(|line| line.ends_with(": Mounted from team/app")).count(), 2, "{mounted}");
    person.ok(&["tag", &theirs, &format!("{host}/team/app:2")]);
    let all = person.ok(&["push", "-a", "-q", &format!("{host}/team/app")]);
    assert_eq!(all, format!("{host}/team/app:1\n{host}/team/app:2\n"));

    person.ok(&["rmi", "-f", id]);
    let back = person.ok(&["pull", &theirs]);
    assert!(back.contains(&format!("Digest: {}\nStatus: Downloaded newer image for {theirs}\n", upstream.manifest)), "{back}");
    assert_eq!(person.ok(&["images", "-q", "--no-trunc"]), format!("{id}\n"));

    // A layer that is at neither end goes out anew, and that is said.
    let fresh = Registry::empty();
    let there = format!("127.0.0.1:{}/x:1", fresh.port);
    person.ok(&["tag", &theirs, &there]);
    let out = person.ok(&["logout", host]);
    assert_eq!(out, format!("Removing login credentials for {host}\n"));
    let config: Value = serde_json::from_slice(&fs::read(person.config()).unwrap()).unwrap();
    assert_eq!(config, serde_json::json!({"auths": {}, "keep": {"me": 1}}));
    let pushed = person.says(&["push", &there]);
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    assert!(!pushed.out.contains(&upstream.manifest), "{}", pushed.out);
    assert!(pushed.err.starts_with(&format!("Note: {} has become another digest", upstream.manifest)), "{}", pushed.err);
    person.ok(&["rmi", &there]);
    let back = person.ok(&["pull", "-q", &there]);
    assert_eq!(
        (back, person.ok(&["images", "-q", "--no-trunc", &format!("127.0.0.1:{}/x", fresh.port)])),
        (format!("{there}\n"), format!("{id}\n"))
    );
    person.ok(&["rmi", "-f", id]);
    person.ok(&["pull", "-q", &one]);
}

fn logged_in(person: &Person<'_>, host: &str) {
    fs::write(person.config(), r#"{"keep": {"me": 1}}"#).unwrap();
    let word = person.home.path().join("word");
    fs::write(&word, "wrong\n").unwrap();
    let wrong = person.with_input(&["login", "-u", "me", "--password-stdin", host], &word);
    assert_eq!(wrong.code, 1, "{}{}", wrong.out, wrong.err);
    assert!(wrong.err.contains("unauthorized: incorrect username or password"), "{}", wrong.err);
    assert!(!fs::read_to_string(person.config()).unwrap().contains("auths"), "nothing is kept of it");
    let nobody = person.with_input(&["login", host], &word);
    assert!(nobody.code != 0 && nobody.err.contains("cannot perform an interactive login from a non-TTY device"), "{}", nobody.err);
    let no_name = person.with_input(&["login", "--password-stdin", host], &word);
    assert!(no_name.code != 0 && no_name.err.contains("--username"), "{}", no_name.err);

    fs::write(&word, "the-password\n").unwrap();
    let good = person.with_input(&["login", "-u", "me", "--password-stdin", &format!("https://{host}/v2/")], &word);
    assert_eq!((good.code, good.out.as_str()), (0, "Login Succeeded\n"), "{}", good.err);
    assert!(good.err.starts_with("WARNING! Your credentials are stored unencrypted in '"), "{}", good.err);
    let config: Value = serde_json::from_slice(&fs::read(person.config()).unwrap()).unwrap();
    assert_eq!(config["keep"], serde_json::json!({"me": 1}));
    assert_eq!(config["auths"][host]["auth"], "bWU6dGhlLXBhc3N3b3Jk");
    assert_eq!(fs::metadata(person.config()).unwrap().permissions().mode() & 0o777, 0o600);
}

fn saved_and_loaded(person: &Person<'_>, upstream: &Upstream, id: &str) {
    let (one, dir) = (format!("{}:1", upstream.name()), person.home.path());
    person.ok(&["tag", &one, "mine:1"]);
    person.ok(&["tag", &one, "mine:2"]);
    let at = |name: &str| dir.join(name).display().to_string();
    let missing = person.fails(&["save", "-o", &at("none.tar"), "none"]);
    assert_eq!(missing, "Error response from daemon: No such image: none:latest\n");
    assert!(!dir.join("none.tar").exists(), "nothing is left of it");
    let no_dir = person.says(&["save", "-o", &at("no/such/dir.tar"), "mine"]);
    assert!(no_dir.code != 0 && no_dir.err.contains("no/such"), "{}", no_dir.err);

    assert_eq!(person.ok(&["save", "-o", &at("all.tar"), "mine"]), "");
    assert_eq!(fs::metadata(dir.join("all.tar")).unwrap().permissions().mode() & 0o777, 0o600);
    let piped = person.command(&["save", "mine"]).output().unwrap();
    assert_eq!(piped.stdout, fs::read(dir.join("all.tar")).unwrap(), "the same bytes every time");
    person.ok(&["save", "-o", &at("id.tar"), short(id)]);
    person.ok(&["rmi", "-f", id]);

    assert_eq!(person.ok(&["load", "-i", &at("all.tar")]), "Loaded image: mine:1\nLoaded image: mine:2\n");
    assert_eq!(person.ok(&["images", "-q", "--no-trunc", "mine"]), format!("{id}\n{id}\n"));
    person.ok(&["save", "-o", &at("again.tar"), "mine"]);
    assert_eq!(fs::read(dir.join("again.tar")).unwrap(), piped.stdout, "what was loaded is what was saved");
    person.ok(&["rmi", "-f", id]);
    assert_eq!(person.ok(&["load", "-q", "-i", &at("id.tar")]), format!("Loaded image ID: {id}\n"));

    let compressed = Command::new("gzip").args(["-k", &at("all.tar")]).status().unwrap();
    assert!(compressed.success());
    let loaded = person.with_input(&["load"], &dir.join("all.tar.gz"));
    assert_eq!((loaded.code, loaded.out.as_str()), (0, "Loaded image: mine:1\nLoaded image: mine:2\n"), "{}", loaded.err);
    fs::write(dir.join("empty.tar"), [0; 1024]).unwrap();
    let empty = person.fails(&["load", "-i", &at("empty.tar")]);
    assert!(empty.contains("invalid archive: does not contain a manifest.json"), "{empty}");

    // A flat archive of files.
    let files = Layer::new().dir("etc/").file("etc/motd", 0o644, b"hello").tar();
    fs::write(dir.join("files.tar"), &files).unwrap();
    let flat = person.with_input(&["import", "-c", "ENV A=1", "-m", "by hand", "-", "flat:1"], &dir.join("files.tar"));
    assert_eq!((flat.code, flat.out.trim().len()), (0, 71), "{}", flat.err);
    let inspected: Value = serde_json::from_str(&person.ok(&["image", "inspect", "flat:1"])).unwrap();
    assert_eq!(inspected[0]["RootFS"]["Layers"], serde_json::json!([digest(&files)]));
    assert_eq!((&inspected[0]["Config"]["Env"], &inspected[0]["Comment"]), (&serde_json::json!(["A=1"]), &"by hand".into()));
    let refused = person.fails(&["import", "-c", "COPY a b", &at("files.tar")]);
    assert!(refused.contains("COPY") && refused.contains("not a valid change command"), "{refused}");
    person.ok(&["rmi", "flat:1"]);
}

fn pruned(person: &Person<'_>, id: &str) {
    let asked = person.says(&["image", "prune"]);
    assert_eq!(asked.code, 0);
    let question = "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] ";
    assert!(asked.err.starts_with(question), "{}", asked.err);
    assert_eq!(person.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n", "nothing is without a name");
    person.ok(&["rmi", "mine:2"]);
    person.ok(&["load", "-i", &person.home.path().join("id.tar").display().to_string()]);
    let kept = person.ok(&["image", "prune", "-a", "-f", "--filter", "label=none"]);
    assert_eq!(kept, "Total reclaimed space: 0B\n");
    let gone = person.ok(&["image", "prune", "-a", "-f"]);
    let expected = format!("Deleted Images:\nuntagged: mine:1\ndeleted: {id}\ndeleted: sha256:");
    assert!(gone.starts_with(&expected), "{gone}");
    let last = gone.lines().last().unwrap();
    assert!(last.starts_with("Total reclaimed space: ") && !last.ends_with(": 0B"), "{gone}");
    assert_eq!(person.ok(&["images", "-q"]), "");
}

/// rmi and prune against containers: what runs, what has ended, what is force.
#[tokio::test(flavor = "multi_thread")]
async fn images_in_use() {
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let upstream = Upstream::new();
    let one = format!("{}:1", upstream.name());
    person.ok(&["pull", "-q", &one]);
    let id = person.ok(&["images", "-q", "--no-trunc"]).trim().to_owned();
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("user");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let container = pods::run(&mut runtime, &pod, &config, &pods::container("c", &one, "sleep 1000")).await;
    let user = &container[..12];

    let running =
        format!("conflict: unable to delete {} (cannot be forced) - image is being used by running container {user}", short(&id));
    for args in [&["rmi", short(&id)][..], &["rmi", "-f", short(&id)]] {
        assert_eq!(person.fails(args), format!("Error response from daemon: {running}\n"));
    }
    let named = format!(
        "conflict: unable to remove repository reference \"{one}\" (must force) - container {user} is using its referenced image {}",
        short(&id)
    );
    assert_eq!(person.fails(&["rmi", &one]), format!("Error response from daemon: {named}\n"));
    assert_eq!(person.ok(&["image", "prune", "-a", "-f"]), "Total reclaimed space: 0B\n");
    person.ok(&["tag", &one, "other"]);
    assert_eq!(person.ok(&["rmi", "other"]), "Untagged: other:latest\n", "another name is no reason to refuse");

    runtime.stop_container(cri::StopContainerRequest { container_id: container.clone(), timeout: 0 }).await.unwrap();
    let stopped =
        format!("conflict: unable to delete {} (must be forced) - image is being used by stopped container {user}", short(&id));
    assert_eq!(person.fails(&["rmi", short(&id)]), format!("Error response from daemon: {stopped}\n"));
    assert_eq!(person.ok(&["image", "prune", "-a", "-f"]), "Total reclaimed space: 0B\n");
    let untagged = person.ok(&["rmi", "-f", &one]);
    assert_eq!(untagged, format!("Untagged: {one}\nUntagged: {}@{}\n", upstream.name(), upstream.manifest));
    assert_eq!(person.ok(&["images", "-q", "-f", "dangling=true"]), format!("{}\n", short(&id)), "it stays without a name");
    assert_eq!(person.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    let deleted = person.ok(&["rmi", "-f", short(&id)]);
    assert!(deleted.starts_with(&format!("Deleted: {id}\n")), "{deleted}");
    daemon.finish().await;
}

/// Helpers keep what would be plain in the file; podman's file is read where docker's says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_kept_by_helpers_and_found_in_podman_s_file() {
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let (_registry, host) = private(&daemon);
    let dir = person.home.path();
    let helper = dir.join("docker-credential-it");
    let script = format!(
        "#!/bin/sh\nread -r said\necho \"$1\" >>{dir}/verbs\ncase $1 in\nstore) printf '%s' \"$said\" >{dir}/kept ;;\n\
         get) [ -e {dir}/kept ] && cat {dir}/kept || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\n\
         erase) rm -f {dir}/kept ;;\nesac\n",
        dir = dir.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(person.config(), r#"{"credsStore": "it"}"#).unwrap();
    fs::write(dir.join("word"), "the-password").unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let input = fs::File::open(dir.join("word")).unwrap();
        said(&person.command(args).env("PATH", &path).stdin(input).output().unwrap())
    };
    let login = run(&["login", "-u", "me", "--password-stdin", &host]);
    assert_eq!((login.code, login.out.as_str(), login.err.as_str()), (0, "Login Succeeded\n", ""));
    let config: Value = serde_json::from_slice(&fs::read(person.config()).unwrap()).unwrap();
    assert_eq!(config, serde_json::json!({"credsStore": "it", "auths": {(host.as_str()): {}}}), "no password in the file");
    let kept: Value = serde_json::from_slice(&fs::read(dir.join("kept")).unwrap()).unwrap();
    assert_eq!((&kept["Username"], &kept["Secret"]), (&"me".into(), &"the-password".into()));
    let search = || run(&["search", &format!("{host}/x")]);
    assert_eq!(search().code, 0, "the helper is asked: {}", search().err);
    run(&["logout", &host]);
    assert!(!dir.join("kept").exists());
    assert_ne!(search().code, 0);

    let auth = dir.join("auth.json");
    fs::write(&auth, format!(r#"{{"auths": {{"{host}": {{"auth": "bWU6dGhlLXBhc3N3b3Jk"}}}}}}"#)).unwrap();
    let podman = person.command(&["search", &format!("{host}/x")]).env("REGISTRY_AUTH_FILE", &auth).output().unwrap();
    assert!(podman.status.success(), "{}", String::from_utf8_lossy(&podman.stderr));
    daemon.finish().await;
}

/// A container that a person has started, and that is ready to be asked.
fn started(person: &Person<'_>, name: &str, more: &[&str], image: &str) {
    let args = [&["run", "-d", "--name", name], more, &[image, "sh", "-c", "touch /ready; exec sleep 1000"]].concat();
    person.ok(&args);
    for _ in 0..500 {
        if person.says(&["exec", name, "ls", "/ready"]).code == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{name} does not run\n{}", person.daemon.log());
}

fn removed(person: &Person<'_>, names: &[&str]) {
    person.ok(&[&["rm", "-f", "-v"], names].concat());
}

/// Change files, commit, run the commit; export and import.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_has_changed_becomes_an_image() {
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let upstream = Upstream::new();
    let base = format!("{}:1", upstream.name());
    person.ok(&["pull", "-q", &base]);
    let layers = |image: &str| -> Vec<String> {
        let inspected: Value = serde_json::from_str(&person.ok(&["image", "inspect", image])).unwrap();
        inspected[0]["RootFS"]["Layers"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    started(&person, "work", &["-v", "data:/data", "-e", "A=1", "--label", "k=v"], &base);
    person.ok(&["exec", "work", "sh", "-c", "rm /srv/page; echo new >/srv/other; echo mine >/data/file; echo x >>/etc/passwd"]);
    let commit = ["commit", "-a", "me", "-m", "a message", "-c", "CMD [\"cat\", \"/srv/other\"]", "work", "mine:1"];
    let id = person.ok(&commit).trim().to_owned();
    assert_eq!(person.ok(&["image", "inspect", "--format", "{{.Id}}", "mine:1"]).trim(), id);
    assert_eq!(person.says(&["exec", "work", "true"]).code, 0, "it runs again");
    let bad = person.fails(&["commit", "-c", "COPY a b", "work"]);
    assert!(bad.contains("COPY") && bad.contains("not a valid change command"), "{bad}");
    let missing = person.fails(&["commit", "none"]);
    assert!(missing.contains("No such container: none"), "{missing}");

    let history = person.ok(&["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "mine:1"]);
    let first = history.lines().next().unwrap();
    assert_eq!(first, format!("{}|sh -c touch /ready; exec sleep 1000|a message", short(&id)));
    let (below, all) = (layers(&base), layers("mine:1"));
    assert_eq!((&all[..2], all.len()), (&below[..], 3), "its image's layers are its own");
    let inspected: Value = serde_json::from_str(&person.ok(&["image", "inspect", "mine:1"])).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["Cmd"], serde_json::json!(["cat", "/srv/other"]));
    assert!(config["Env"].as_array().unwrap().contains(&"A=1".into()), "{config}");
    assert_eq!((&config["Labels"]["k"], &inspected[0]["Author"]), (&"v".into(), &"me".into()));
    let sizes: Value = serde_json::from_str(&person.ok(&["images", "--format", "json", "mine"])).unwrap();
    assert_eq!(sizes[0]["SharedSize"], person.ok(&["images", "--format", "{{.SharedSize}}", &upstream.name()]).trim());
    assert_eq!(person.ok(&["run", "--rm", "mine:1"]), "new\n");
    let seen =
        person.ok(&["run", "--rm", "mine:1", "sh", "-c", "ls /srv; ls /data; tail -n 1 /etc/passwd; cat /etc/hosts | wc -l"]);
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen[..2], ["other", "x"], "what was removed is gone, what is in a volume is not in the image");
    assert_ne!(seen[2], "0");

    // What has never run has changed nothing.
    person.ok(&["create", "--name", "idle", "-v", "data:/somewhere/deep", &base]);
    let idle = person.ok(&["commit", "idle"]).trim().to_owned();
    assert_eq!(layers(&idle), below);
    let history = person.ok(&["history", "--format", "{{.Size}}", &idle]);
    assert_eq!(history.lines().next(), Some("0B"));

    let tar = person.home.path().join("work.tar");
    person.ok(&["export", "-o", &tar.display().to_string(), "work"]);
    let mut names = Vec::new();
    for entry in tar::Archive::new(fs::File::open(&tar).unwrap()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string().trim_end_matches('/').trim_start_matches("./").to_owned());
    }
    assert!(
        names.contains(&"srv/other".into()) && !names.contains(&"srv/page".into()) && !names.contains(&"data/file".into()),
        "{names:?}"
    );
    let flat = person.with_input(&["import", "-c", "CMD [\"/bin/cat\", \"/srv/other\"]", "-", "flat:1"], &tar);
    assert_eq!(flat.code, 0, "{}", flat.err);
    assert_eq!(layers("flat:1").len(), 1);
    assert_eq!(person.ok(&["run", "--rm", "flat:1"]), "new\n");

    // What takes the disk; a container that has ended keeps its image.
    let usage = person.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert_eq!(usage, "Images 4 1\nContainers 2 1\nLocal Volumes 1 1\nBuild Cache 0 0\n");
    let verbose = person.ok(&["system", "df", "-v"]);
    for part in ["Images space usage:", "Containers space usage:", "Local Volumes space usage:", "mine", "work", "data"] {
        assert!(verbose.contains(part), "{part}: {verbose}");
    }
    person.ok(&["stop", "-t", "0", "work"]);
    let refused = person.fails(&["rmi", &base]);
    assert!(refused.contains("(must force) - container ") && refused.contains("is using its referenced image"), "{refused}");
    assert_eq!(person.says(&["commit", "work", "later"]).code, 0, "of one that has ended");
    let told = person.ok(&["events", "--since", "10m", "--until", "0s", "--filter", "type=image", "--format", "{{.Action}}"]);
    for action in ["pull", "import"] {
        assert!(told.lines().any(|line| line == action), "{action}: {told}");
    }
    let pruned = person.ok(&["system", "prune", "-a", "-f"]);
    assert!(pruned.starts_with("Deleted Containers:\n") && pruned.contains("Deleted Images:\n"), "{pruned}");
    assert_eq!(person.ok(&["images", "-q"]), "");
    person.ok(&["volume", "rm", "data"]);
    daemon.finish().await;
}

/// The files of a daemon's store that images are made of.
fn stored(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["layers/sha256", "blobs/sha256", "images/sha256", "ingest", "trash"] {
        let entries = fs::read_dir(daemon.root().join(dir)).unwrap();
        found.extend(entries.map(|entry| format!("{dir}/{}", entry.unwrap().file_name().display())));
    }
    found.sort();
    found
}

/// SIGKILL of the daemon at every step: afterwards there is what was there before or the whole image, and it works again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_leaves_no_half_image() {
    let mut daemon = Daemon::start().await;
    let upstream = Upstream::new();
    let base = format!("{}:1", upstream.name());
    let target = Registry::empty();
    let pushed = format!("127.0.0.1:{}/x:1", target.port);
    let (files, saved);
    {
        let person = Person::new(&daemon);
        person.ok(&["pull", "-q", &base]);
        person.ok(&["tag", &base, &pushed]);
        started(&person, "work", &[], &base);
        person.ok(&["exec", "work", "sh", "-c", "echo new >/srv/other"]);
        files = daemon.dir.path().join("files.tar");
        fs::write(&files, Layer::new().file("unique", 0o644, b"to this").tar()).unwrap();
        saved = daemon.dir.path().join("saved.tar");
        let id = person.ok(&["import", &files.display().to_string(), "loaded:1"]);
        person.ok(&["save", "-o", &saved.display().to_string(), "loaded:1"]);
        person.ok(&["rmi", id.trim()]);
    }
    let (files, saved) = (files.display().to_string(), saved.display().to_string());
    let load = ["load", "-i", saved.as_str()];
    let import = ["import", files.as_str(), "made:1"];
    let commit = ["commit", "work", "made:1"];
    let push = ["push", pushed.as_str()];
    let before = stored(&daemon);
    for (point, args) in [
        ("image.layer", &load[..]),
        ("image.layers", &load),
        ("image.put", &load),
        ("image.layer", &import),
        ("image.layers", &import),
        ("image.put", &import),
        ("commit.frozen", &commit),
        ("image.layer", &commit),
        ("image.layers", &commit),
        ("image.put", &commit),
        ("push.blob", &push),
        ("push.manifest", &push),
        ("push.record", &push),
    ] {
        daemon.terminate();
        daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        daemon.run().await;
        let died = Person::new(&daemon).says(args);
        assert_ne!(died.code, 0, "{point} {args:?}: {}", died.out);
        daemon.wait_death();
        daemon.set_env("CREEL_FAILPOINTS", None);
        daemon.run().await;
        let person = Person::new(&daemon);
        assert_eq!(
            person.says(&["exec", "work", "true"]).code,
            0,
            "{point} {args:?}: the container stands still\n{}",
            daemon.log()
        );
        let made = person.ok(&["images", "-q", "--filter", "reference=made", "--filter", "reference=loaded"]);
        assert_eq!(made.is_empty(), point != "image.put", "{point} {args:?}: {made}");
        if made.is_empty() {
            eventually(&before, &daemon, point);
        }
        let retried = person.ok(args);
        match args[0] {
            "push" => assert!(retried.contains(&upstream.manifest), "{retried}"),
            "load" => assert_eq!(retried, "Loaded image: loaded:1\n"),
            _ => assert!(retried.starts_with("sha256:"), "{retried}"),
        }
        if args[0] != "push" {
            let name = if args[0] == "load" { "loaded:1" } else { "made:1" };
            person.ok(&["rmi", name]);
            // A commit or import that was done twice has left its first image without a name.
            person.ok(&["image", "prune", "-f"]);
            eventually(&before, &daemon, point);
        }
    }
    removed(&Person::new(&daemon), &["work"]);
    daemon.finish().await;
}

/// What is collected in the background needs a moment.
fn eventually(wanted: &[String], daemon: &Daemon, point: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while stored(daemon) != wanted {
        assert!(std::time::Instant::now() < deadline, "{point}: {:#?} became {:#?}\n{}", wanted, stored(daemon), daemon.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Runs a program of the other side, which must succeed.
fn other_side(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

/// Archives and registries between creel and skopeo: the same digests in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn images_go_to_skopeo_and_back() {
    if !is_there("skopeo") {
        return;
    }
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let upstream = Upstream::new();
    let base = format!("{}:1", upstream.name());
    person.ok(&["pull", "-q", &base]);
    person.ok(&["tag", &base, "mine:7"]);
    let id = person.ok(&["images", "-q", "--no-trunc", "mine"]).trim().to_owned();
    let at = |name: &str| person.home.path().join(name).display().to_string();
    let copy = |from: &str, to: &str| {
        other_side("skopeo", &["copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false", from, to])
    };
    let back = |archive: &str, said: &str| {
        person.ok(&["rmi", "-f", &id]);
        assert_eq!(person.ok(&["load", "-i", archive]), said);
        assert!(person.ok(&["images", "-q", "--no-trunc"]).contains(&id), "the same image");
    };

    // Our archive, read both ways that it can be read.
    person.ok(&["save", "-o", &at("ours.tar"), "mine:7"]);
    copy(&format!("docker-archive:{}:mine:7", at("ours.tar")), &format!("docker-archive:{}:theirs/app:8", at("docker.tar")));
    copy(&format!("oci-archive:{}:7", at("ours.tar")), &format!("oci-archive:{}:theirs/app:9", at("oci.tar")));
    copy(&format!("oci-archive:{}:7", at("ours.tar")), &format!("oci:{}:bare", at("layout")));
    let raw = other_side("skopeo", &["inspect", "--raw", "--config", &format!("oci-archive:{}:7", at("ours.tar"))]);
    assert_eq!(digest(raw.as_bytes()), id);
    // Theirs.
    back(&at("docker.tar"), "Loaded image: theirs/app:8\n");
    back(&at("oci.tar"), "Loaded image: theirs/app:9\n");
    other_side("tar", &["-C", &at("layout"), "-cf", &at("layout.tar"), "."]);
    back(&at("layout.tar"), &format!("Loaded image ID: {id}\n"));
    copy(&format!("docker://{base}"), &format!("oci-archive:{}:from/registry:1", at("gzip.tar")));
    back(&at("gzip.tar"), "Loaded image: from/registry:1\n");

    // Over a registry: what one has pushed the other sees under the same digest.
    let registry = Registry::empty();
    let host = format!("127.0.0.1:{}", registry.port);
    person.ok(&["pull", "-q", &base]);
    person.ok(&["tag", &base, &format!("{host}/ours:1")]);
    person.ok(&["push", "-q", &format!("{host}/ours:1")]);
    let seen = |name: &str| {
        other_side("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{host}/{name}")])
    };
    assert_eq!(seen("ours:1").trim(), upstream.manifest);
    copy(&format!("oci-archive:{}:7", at("ours.tar")), &format!("docker://{host}/theirs:1"));
    let pulled = person.ok(&["pull", &format!("{host}/theirs:1")]);
    assert!(pulled.contains(&format!("Digest: {}", seen("theirs:1"))), "{pulled}");
    assert_eq!(person.ok(&["image", "inspect", "--format", "{{.Id}}", &format!("{host}/theirs:1")]).trim(), id);
    person.ok(&["image", "prune", "-a", "-f"]);
    daemon.finish().await;
}

/// umoci unpacks what creel has saved, adds a layer, and creel loads it with the layers below it as they were.
#[tokio::test(flavor = "multi_thread")]
async fn images_go_to_umoci_and_back() {
    if !is_there("umoci") {
        return;
    }
    let daemon = Daemon::start().await;
    let person = Person::new(&daemon);
    let upstream = Upstream::new();
    person.ok(&["pull", "-q", &format!("{}:1", upstream.name())]);
    let at = |name: &str| person.home.path().join(name).display().to_string();
    person.ok(&["save", "-o", &at("ours.tar"), &format!("{}:1", upstream.name())]);
    fs::create_dir(at("layout")).unwrap();
    other_side("tar", &["-C", &at("layout"), "-xf", &at("ours.tar")]);
    // docker's file beside the layout is about the old image only.
    fs::remove_file(format!("{}/manifest.json", at("layout"))).unwrap();
    let image = |tag: &str| format!("{}:{tag}", at("layout"));
    other_side("umoci", &["unpack", "--image", &image("1"), &at("bundle")]);
    let page = format!("{}/rootfs/srv", at("bundle"));
    assert_eq!(fs::read(format!("{page}/page")).unwrap(), b"hello");
    fs::write(format!("{page}/more"), b"from umoci").unwrap();
    other_side("umoci", &["repack", "--image", &image("1"), &at("bundle")]);
    other_side("tar", &["-C", &at("layout"), "-cf", &at("theirs.tar"), "."]);
    let loaded = person.ok(&["load", "-i", &at("theirs.tar")]);
    let id = loaded.trim().rsplit(' ').next().unwrap().to_owned();
    let inspected: Value = serde_json::from_str(&person.ok(&["image", "inspect", &id])).unwrap();
    let layers = inspected[0]["RootFS"]["Layers"].as_array().unwrap();
    assert_eq!(
        (layers.len(), &layers[..2]),
        (3, &[upstream.diff_ids[0].as_str().into(), upstream.diff_ids[1].as_str().into()][..])
    );
    assert_eq!(person.ok(&["run", "--rm", &id, "cat", "/srv/more"]), "from umoci");
    person.ok(&["image", "prune", "-a", "-f"]);
    daemon.finish().await;
}
