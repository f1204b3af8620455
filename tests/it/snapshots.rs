//! Everything that creel says to people, compared with what it said before (`snapshots/*.txt`, see `transcript`).

use std::{fs, time::Duration};

use api::runtime as cri;

use crate::{
    daemon::Daemon,
    image::{Image, Layer},
    pods,
    registry::Registry,
    transcript::Transcript,
};

/// An image of one layer in a registry, shown as `registry.test`.
fn upstream(person: &mut Transcript<'_>) -> (Registry, String) {
    let registry = Registry::empty();
    let mut image = Image::of(&[Layer::busybox().dir("srv/").file("srv/page", 0o644, b"hello").tar()]);
    image.config["Labels"] = serde_json::json!({"by": "creel"});
    image.push(&registry, "team/app", "1");
    let host = format!("127.0.0.1:{}", registry.port);
    person.calls(&host, "registry.test");
    person.calls(&host.replace(':', "_"), "registry.test");
    let name = format!("{host}/team/app:1");
    (registry, name)
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    for _ in 0..600 {
        if probe() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images() {
    let daemon = Daemon::start().await;
    let mut person = Transcript::new(&daemon);
    let (registry, app) = upstream(&mut person);
    let host = format!("127.0.0.1:{}", registry.port);
    person.says(&["images"]);
    person.says(&["search", &format!("{host}/team")]);
    // What lies between may be passed over.
    person
        .says_like(&["pull", &app], &[(r"(?m)^\w+: (Download complete|Downloading|Verifying Checksum|Extracting|Waiting)\n", "")]);
    person.says(&["pull", &app]);
    person.says(&["pull", "-q", &app]);
    person.says(&["pull", &format!("{host}/team/app:2")]);
    person.says(&["pull", &format!("{host}/team/none")]);
    person.says(&["pull", "--platform", "plan9/mips", &app]);
    person.says(&["pull", "-a", &app]);
    person.says(&["pull", "UPPER"]);
    person.says(&["images"]);
    person.says(&["images", "--digests"]);
    person.says(&["images", "-q", "--no-trunc"]);
    person.says(&["images", "ls"]);
    person.says(&["images", "-f", "colour=red"]);
    person.says(&["history", &app]);
    person.says(&["image", "inspect", &app]);
    person.says(&["image", "inspect", "none"]);
    person.says(&["tag", &app, "mine"]);
    person.says(&["tag", &app, "mine:2"]);
    person.says(&["tag", "none", "x"]);
    let made = Layer::new().dir("etc/").file("etc/motd", 0o644, b"hello").tar();
    fs::write(person.at("files.tar"), made).unwrap();
    let files = person.at("files.tar");
    person.says_with(&["import", "-c", "CMD [\"/none\"]", "-m", "by hand", "-", "flat:1"], &files);
    person.says(&["import", "-c", "COPY a b", files.to_str().unwrap()]);
    person.says(&["import", "-c", "CDM a", files.to_str().unwrap()]);
    person.says(&["history", "flat:1"]);
    person.says_like(&["images", "--tree"], &[(r"layer [0-9a-f]{12}", "layer <some>")]);
    saved(&mut person);
    pushed(&mut person, &host);
    person.says(&["rmi", "mine:2", "none", "mine"]);
    let id = person.quietly(&["images", "-q", "flat:1"]);
    person.quietly(&["tag", "flat:1", "flat:2"]);
    person.says(&["rmi", &id]);
    person.says(&["rmi", "-f", "none"]);
    person.says(&["rmi", "flat:1", "flat:2"]);
    person.quietly(&["import", "-m", "nameless", files.to_str().unwrap()]);
    person.says(&["images", "-f", "dangling=true"]);
    person.says(&["image", "prune"]);
    person.says(&["image", "prune", "-f"]);
    person.says(&["image", "prune", "-af"]);
    person.says(&["image", "prune", "-f"]);
    person.matches("images", include_str!("snapshots/images.txt"));
    daemon.finish().await;
}

fn saved(person: &mut Transcript<'_>) {
    let (archive, none) = (person.at("mine.tar"), person.at("none.tar"));
    let (archive, none) = (archive.to_str().unwrap(), none.to_str().unwrap());
    person.says(&["save", "-o", archive, "mine"]);
    person.says(&["save", "-o", none, "none"]);
    person.says(&["save", "-o", "/no/such/directory/x.tar", "mine"]);
    person.says(&["load", "-i", archive]);
    person.says(&["load", "-i", none]);
    let garbage = person.at("garbage.tar");
    fs::write(&garbage, "this is no archive").unwrap();
    person.says(&["load", "-i", garbage.to_str().unwrap()]);
    fs::write(&garbage, [0; 1024]).unwrap();
    person.says(&["load", "-i", garbage.to_str().unwrap()]);
    fs::write(&garbage, b"\xfd7zXZ\0 and no more").unwrap();
    person.says_with(&["load"], &garbage);
}

fn pushed(person: &mut Transcript<'_>, host: &str) {
    let (copy, none) = (format!("{host}/copy/app:1"), format!("{host}/team/none"));
    person.says(&["push", &none]);
    person.says(&["tag", "mine", &copy]);
    person.says(&["push", &copy]);
    person.says(&["push", &copy]);
    person.says(&["push", "-q", &copy]);
    person.says(&["logout", host]);
    person.says(&["login", "-u", "me", host]);
    let word = person.at("word");
    fs::write(&word, "secret\n").unwrap();
    person.says_with(&["login", "--password-stdin", host], &word);
    person.says_with(&["login", "-u", "me", "--password-stdin", host], &word);
    person.says(&["logout", host]);
    person.says(&["rmi", &copy]);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers() {
    let daemon = Daemon::start().await;
    let mut person = Transcript::new(&daemon);
    let (_registry, app) = upstream(&mut person);
    person.quietly(&["pull", &app]);
    person.quietly(&["tag", &app, "app"]);
    person.says(&["ps"]);
    person.says(&["run", "--rm", "app", "echo", "hello"]);
    person.says(&["run", "--rm", "app", "sh", "-c", "echo said >&2; exit 3"]);
    person.says(&["run", "--rm", "app", "no-such-program"]);
    person.says(&["run", "--rm", "app", "/etc/passwd"]);
    person.says(&["run", "--pull", "never", "none"]);
    person.says(&["run", "--restart", "always", "--rm", "app"]);
    person.says(&["run", "--memroy", "5m", "app"]);
    person.says(&["run", "-p", "80:70000", "app"]);
    person.says(&["run", "-v", "relative/path:/x", "app", "true"]);
    person.says(&["run", "--network", "none-such", "app", "true"]);
    let loop_ = "trap 'exit 5' TERM; echo ready; echo error >&2; while :; do sleep 0.1; done";
    let flags = ["--name", "web", "-h", "web", "-l", "tier=front", "-p", "127.0.0.1::80", "--expose", "90", "-m", "64m"];
    person.says(&[&["run", "-d"][..], &flags, &["app", "sh", "-c", loop_]].concat());
    eventually("it is ready", || person.hears(&["logs", "web"]) == ("ready\n".into(), "error\n".into()));
    let port = person.quietly(&["port", "web", "80"]);
    person.calls(&port, "127.0.0.1:PORT");
    person.says(&["run", "--name", "web", "app"]);
    person.says(&["create", "--name", "made", "app", "true"]);
    person.says(&["ps"]);
    person.says(&["ps", "-a", "--no-trunc", "--filter", "name=made"]);
    person.says(&["ps", "-s", "--filter", "name=made", "-a"]);
    person.says(&["ps", "--filter", "colour=red"]);
    person.says(&["ps", "--format", "table {{.Names}}\t{{.State}}\t{{.Labels}}"]);
    person.says(&["logs", "web"]);
    person.says(&["port", "web"]);
    person.says(&["port", "web", "99"]);
    person.says_like(
        &["top", "web", "-o", "pid,comm"],
        &[(r"(?m)^\d+ .*\n", "<processes>\n"), ("(<processes>\n)+", "<processes>\n")],
    );
    person.says_like(&["stats", "--no-stream", "web"], &[(r"(?m) \d+$", " <number>")]);
    looked_into(&mut person);
    person.says(&["inspect", "web"]);
    ended(&mut person);
    pods_are_shown(&daemon, &mut person).await;
    person.matches("containers", include_str!("snapshots/containers.txt"));
    daemon.finish().await;
}

fn looked_into(person: &mut Transcript<'_>) {
    person.says(&["exec", "web", "sh", "-c", "echo inside; exit 4"]);
    person.says(&["exec", "web", "no-such-program"]);
    person.says(&["exec", "made", "true"]);
    person.says(&["exec", "none", "true"]);
    person.quietly(&["exec", "web", "sh", "-c", "echo x >/new; rm /srv/page; echo >>/etc/group"]);
    person.says(&["diff", "web"]);
    let file = person.at("copied");
    fs::write(&file, "copied").unwrap();
    person.says(&["cp", file.to_str().unwrap(), "web:/tmp/copied"]);
    person.says(&["cp", "web:/no/such/file", file.to_str().unwrap()]);
    person.says(&["pause", "web"]);
    person.says(&["ps"]);
    person.says(&["exec", "web", "true"]);
    person.says(&["unpause", "web"]);
    person.says(&["update", "-m", "128m", "web"]);
    person.says(&["update", "--cpus", "x", "web"]);
}

fn ended(person: &mut Transcript<'_>) {
    person.says(&["rm", "web"]);
    person.says(&["rename", "web", "site"]);
    person.says(&["rename", "none", "site"]);
    person.says(&["stop", "-t", "60", "site"]);
    person.says(&["stop", "site", "none"]);
    person.says(&["wait", "site"]);
    person.says(&["kill", "site"]);
    person.says(&["ps", "-a"]);
    person.says(&["start", "none"]);
    person.says(&["start", "made"]);
    eventually("it has ended", || person.quietly(&["inspect", "-f", "{{.State.Status}}", "made"]) == "exited");
    person.says(&["commit", "-m", "by hand", "site", "mine:1"]);
    person.says(&["history", "mine:1"]);
    person.says(&["commit", "none"]);
    person.says(&["rmi", "mine:1"]);
    person.says(&["rmi", "app"]);
    person.says(&["inspect", "none"]);
    person.says(&["logs", "none"]);
    person.says(&["rm", "made", "none"]);
    person.says(&["container", "prune"]);
    person.says(&["container", "prune", "-f"]);
    person.says(&["container", "prune", "-f"]);
    person.says(&["ps", "-a"]);
}

/// A kubelet's containers.
async fn pods_are_shown(daemon: &Daemon, person: &mut Transcript<'_>) {
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("kube");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let image = person.quietly(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().next().unwrap().to_owned();
    pods::run(&mut runtime, &pod, &config, &pods::container("main", &image, "sleep 1000")).await;
    person.says(&["ps", "--pods"]);
    person.says(&["ps"]);
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_networks_and_the_system() {
    let daemon = Daemon::start().await;
    let mut person = Transcript::new(&daemon);
    let (_registry, app) = upstream(&mut person);
    person.quietly(&["pull", &app]);
    person.quietly(&["tag", &app, "app"]);
    person.says(&["version"]);
    person.says(&["info"]);
    person.says(&["volume", "create", "--label", "a=b", "data"]);
    person.says(&["volume", "create", "-d", "nfs", "x"]);
    person.says(&["volume", "create", "in/valid"]);
    person.says(&["volume", "ls"]);
    person.says(&["volume", "inspect", "data"]);
    person.says(&["volume", "inspect", "none"]);
    person.says(&["create", "--name", "user", "-v", "data:/data", "app", "true"]);
    person.says(&["volume", "rm", "data"]);
    person.says(&["network", "create", "front"]);
    person.says(&["network", "create", "front"]);
    person.says(&["network", "create", "--subnet", "nonsense", "back"]);
    person.says(&["network", "ls"]);
    person.says(&["network", "inspect", "front"]);
    person.says(&["network", "inspect", "none"]);
    person.says(&["network", "rm", "bridge"]);
    person.says(&["system", "df"]);
    person.says(&["system", "df", "-v"]);
    person.says(&["volume", "rm", "none"]);
    person.says(&["rm", "-v", "user"]);
    person.says(&["volume", "prune"]);
    person.says(&["volume", "prune", "-af"]);
    person.says(&["network", "prune"]);
    person.says(&["network", "prune", "-f"]);
    person.says(&["volume", "create", "data"]);
    person.says(&["volume", "rm", "data"]);
    person.says(&["network", "create", "front"]);
    person.says(&["network", "rm", "front", "none"]);
    person.says(&["system", "prune"]);
    person.says(&["system", "prune", "-f"]);
    person.quietly(&["create", "--name", "last", "app", "true"]);
    person.says(&["system", "prune", "-af", "--volumes"]);
    person.says(&["events", "--since", "1h", "--until", "0s"]);
    person.says(&["events", "--since", "nonsense"]);
    person.matches("system", include_str!("snapshots/system.txt"));
    daemon.finish().await;
}

/// What is wrong on the command line itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_itself() {
    let daemon = Daemon::start().await;
    let mut person = Transcript::new(&daemon);
    person.says(&["--help"]);
    person.says(&["imagse"]);
    person.says(&["run"]);
    person.says(&["ps", "--al"]);
    person.says(&["ps", "--format", "yaml"]);
    person.says(&["ps", "--format", "{{.ID"]);
    person.says(&["stop", "-t", "x", "y"]);
    person.says(&["--socket", "/nonexistent/creel.sock", "ps"]);
    person.matches("command-line", include_str!("snapshots/command-line.txt"));
    daemon.finish().await;
}
