//! What becomes of a build (`--output`, `--push`), steps that come from elsewhere and go there, what builds leave and how it goes, and
//! a daemon that dies in the middle.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    build::Lab,
    check,
    daemon::bin,
    pods::{self},
    registry::Registry,
};

const SMALL: &str = "FROM base:1 AS build\nRUN echo made > /made\nFROM scratch AS files\nCOPY --from=build /made /dir/made\n\
                     COPY src /src\nFROM base:1\nCOPY --from=files /dir/made /made\nCMD cat /made\n";

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn path(lab: &Lab, name: &str) -> String {
    lab.home.path().join(name).display().to_string()
}

/// A line of docker's file of credentials: `it:secret`.
fn login(lab: &Lab, host: &str) {
    fs::create_dir_all(lab.home.path().join(".docker")).unwrap();
    let config = serde_json::json!({"auths": {host: {"auth": "aXQ6c2VjcmV0"}}});
    fs::write(lab.home.path().join(".docker/config.json"), config.to_string()).unwrap();
}

/// A registry that only lets `it:secret` in.
fn private(lab: &Lab) -> (Registry, String) {
    let dir = lab.home.path().join("registry");
    fs::create_dir_all(&dir).unwrap();
    let script = "print \"it:\", crypt(\"secret\", q($2b$05$creellabcreellabcreelu)), \"\\n\"";
    let line = Command::new("perl").args(["-e", script]).output().expect("perl runs").stdout;
    fs::write(dir.join("htpasswd"), line).unwrap();
    let extra = format!("auth:\n  htpasswd: {{realm: it, path: {}}}\n", dir.join("htpasswd").display());
    let registry = Registry::over(&dir.join("data"), &extra);
    let host = format!("127.0.0.1:{}", registry.port);
    (registry, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_go_where_they_are_asked_to() {
    let lab = Lab::new().await;
    fs::write(lab.at("Dockerfile"), SMALL).unwrap();
    let context = lab.context().display().to_string();
    let before = lab.ok(&["images", "-aq"]).out;

    // Files, as a directory and as archives; nothing of it is in the store.
    let out = path(&lab, "out");
    lab.ok(&["build", "--target", "files", "-o", &out, &context]);
    assert_eq!((text(format!("{out}/dir/made")), text(format!("{out}/src/page"))), ("made\n".into(), "first\n".into()));
    let tar = path(&lab, "files.tar");
    lab.ok(&["build", "--target", "files", "--output", &format!("type=tar,dest={tar}"), &context]);
    let listed = Command::new("tar").args(["-tf", &tar]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().any(|line| line.trim_start_matches("./") == "dir/made"), "{listed}");
    let piped = lab.says(&["build", "-q", "--target", "files", "-o", "-", &context], None);
    assert!(piped.code == 0 && piped.out.contains("dir/made") && !piped.out.contains("sha256:"), "{piped:?}");
    assert_eq!(lab.ok(&["images", "-aq"]).out, before);

    // Archives of the image: what is loaded from them is what would have been built.
    let (id, _) = lab.build(SMALL, &["-t", "app:1"]);
    let (oci, meta, iid) = (path(&lab, "app.tar"), path(&lab, "meta.json"), path(&lab, "iid"));
    let annotated = ["--annotation", "org.example.a=b", "--metadata-file", &meta, "--iidfile", &iid];
    let to_oci = ["build", "-t", "app:2", "-o", &format!("type=oci,dest={oci}"), &context];
    lab.ok(&[&to_oci[..], &annotated].concat());
    assert_eq!(text(&iid), id);
    let said: Value = serde_json::from_str(&text(&meta)).unwrap();
    assert_eq!(said["containerimage.config.digest"], id.as_str());
    assert_eq!(said["image.name"], "docker.io/library/app:2");
    let layout = path(&lab, "layout");
    lab.ok(&["build", "--annotation", "org.example.a=b", "-o", &format!("type=oci,tar=false,dest={layout}"), &context]);
    let digest = said["containerimage.digest"].as_str().unwrap();
    let manifest: Value = serde_json::from_str(&text(format!("{layout}/blobs/sha256/{}", &digest[7..]))).unwrap();
    assert_eq!(manifest["annotations"]["org.example.a"], "b");
    assert_eq!(lab.says(&["image", "inspect", "app:2"], None).code, 1, "it is in no store");
    assert_eq!(lab.ok(&["load", "-i", &oci]).out, "Loaded image: app:2\n");
    assert_eq!(lab.ok(&["image", "inspect", "--format", "{{.Id}}", "app:2"]).out.trim(), id);
    let docker = path(&lab, "docker.tar");
    lab.ok(&["build", "-t", "app:3", "--load", "-o", &format!("type=docker,dest={docker}"), &context]);
    assert_eq!(lab.ok(&["image", "inspect", "--format", "{{.Id}}", "app:3"]).out.trim(), id);
    assert!(Path::new(&docker).exists());

    // An image without a name, and what a kubelet makes of one that has.
    let (dangling, _) = lab.build("FROM base:1\nLABEL only=here\n", &[]);
    let listed = lab.ok(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]).out;
    assert!(listed.contains(&dangling), "{listed}");
    let mut runtime = lab.daemon.runtime().await;
    let pod_config = pods::host_pod("built");
    let pod = pods::run_pod(&mut runtime, &pod_config).await.unwrap();
    let container = pods::container("c", "app:1", "cat /made");
    let id = pods::run(&mut runtime, &pod, &pod_config, &container).await;
    assert_eq!(pods::wait_exit(&mut runtime, &id).await.exit_code, 0);
    runtime.remove_pod_sandbox(api::runtime::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_said() {
    let lab = Lab::new().await;
    let dockerfile = "FROM base:1\n";
    for (args, part) in [
        (&["--platform", "linux"][..], "is not OS/ARCHITECTURE"),
        (&["--annotation", "a=b"], "only manifests have them"),
        (&["--push"], "tag is needed when pushing to registry"),
        (&["-t", "UPPER"], "UPPER"),
        (&["-t", "x@sha256:0000000000000000000000000000000000000000000000000000000000000000"], "has no digest"),
    ] {
        let told = lab.fails(dockerfile, args);
        assert!(told.contains(part), "{args:?}: {told}");
    }
    for (args, part) in [
        (&["-o", "type=zip,dest=x"][..], "the types are"),
        (&["--cache-to", "type=gha"], "the types are"),
        (&["--rm=false"], "always taken away"),
    ] {
        let context = lab.context().display().to_string();
        let said = lab.says(&[&["build", &context], args].concat(), None);
        assert!(said.code != 0 && said.err.contains(part), "{args:?}: {said:?}");
    }
    // This machine's platform is no other.
    let machine = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    lab.build(dockerfile, &["--platform", machine, "--rm", "--force-rm"]);
    lab.finish().await;
}

/// Files of an image belong to whoever builds, and no program of it runs as them for others.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_stay_in_their_directory() {
    let lab = Lab::new().await;
    let outside = lab.home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let dockerfile = format!(
        "FROM base:1 AS build\nRUN b=busybox; $b mkdir -p /t/ro && cd /t && $b ln -s {0} link && $b ln -s ../../../../outside up && \
         $b cp /bin/busybox su && $b chmod 4755 su && $b mknod null c 1 3 && $b mkfifo pipe && echo x > ro/file && $b chmod 555 ro\nFROM scratch\nCOPY --from=build /t /\n",
        outside.display()
    );
    fs::write(lab.at("Dockerfile"), dockerfile).unwrap();
    let (out, context) = (path(&lab, "out"), lab.context().display().to_string());
    lab.ok(&["build", "-o", &out, &context]);
    let at = |name: &str| Path::new(&out).join(name);
    let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("su"), mode("ro"), text(at("ro/file"))), (0o755, 0o555, "x\n".into()));
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert!(!at("null").exists() && !at("pipe").exists());

    // A link that was there before leads nobody out.
    let other = path(&lab, "other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&outside, Path::new(&other).join("dir")).unwrap();
    fs::write(lab.at("Dockerfile"), "FROM scratch\nCOPY src/page /dir/page\n").unwrap();
    let said = lab.says(&["build", "-o", &other, &context], None);
    assert!(said.code != 0 && said.err.contains("cannot overwrite non-directory"), "{said:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_ask_who_it_is() {
    let lab = Lab::new().await;
    let (_registry, host) = private(&lab);
    let name = format!("{host}/team/app:1");
    let told = lab.fails("FROM base:1\nLABEL a=b\n", &["-t", &name, "--push"]);
    assert!(told.contains("push"), "{told}");
    login(&lab, &host);
    let meta = path(&lab, "meta.json");
    let (id, _) = lab.build("FROM base:1\nLABEL a=b\n", &["-t", &name, "--push", "--metadata-file", &meta]);
    let said: Value = serde_json::from_str(&text(&meta)).unwrap();
    let digest = said["containerimage.digest"].as_str().unwrap().to_owned();
    assert_ne!(digest, id);
    lab.ok(&["rmi", &name]);

    // FROM by tag and digest, and --from, with the same credentials.
    let dockerfile = format!("FROM {name}@{digest}\nCOPY --from={name} /bin/busybox /copy\n");
    lab.build(&dockerfile, &["-t", "again:1", "--pull"]);
    let labels = lab.ok(&["image", "inspect", "--format", "{{json .Config.Labels}}", "again:1"]).out;
    assert_eq!(labels.trim(), r#"{"a":"b"}"#);
    // A local image's id is asked for nowhere.
    lab.build(&format!("FROM {id}\nLABEL c=d\n"), &["--pull"]);
    lab.build(&format!("FROM {}\n", &id[7..19]), &["--pull"]);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_others_are_taken() {
    let lab = Lab::new().await;
    let (_registry, host) = private(&lab);
    login(&lab, &host);
    let dir = path(&lab, "cache");
    let reference = format!("{host}/cache:1");
    let (to_local, to_registry) = (format!("type=local,dest={dir},mode=max"), format!("type=registry,ref={reference},mode=max"));
    let (id, _) = lab.build(SMALL, &["--cache-to", &to_local, "--cache-to", &to_registry]);
    let layers = |lab: &Lab, id: &str| lab.ok(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", id]).out;
    let wanted = layers(&lab, &id);

    // Another machine, which has only the base.
    for from in [format!("type=local,src={dir}"), reference.clone()] {
        let other = Lab::new().await;
        login(&other, &host);
        let (same, progress) = other.build(SMALL, &["--cache-from", &from]);
        assert_eq!(progress.matches("CACHED").count(), 4, "{from}: {progress}");
        assert_eq!(layers(&other, &same), wanted, "{progress}");
        // Whoever names no such source has nothing of it.
        let (_, progress) = other.build(SMALL, &[]);
        assert_eq!(progress.matches("CACHED").count(), 0, "{from}: {progress}");
        other.finish().await;
    }
    let (plain, image) = ("FROM base:1\nRUN echo a > /a\nRUN echo b > /b\n", format!("{host}/inline:1"));
    lab.build(plain, &["-t", &image, "--push", "--cache-to", "type=inline"]);
    let other = Lab::new().await;
    login(&other, &host);
    let (_, progress) = other.build(plain, &["--cache-from", &image]);
    assert_eq!(progress.matches("CACHED").count(), 2, "{progress}");
    other.finish().await;

    // What cannot be had is told, and done without; what is damaged too.
    let other = Lab::new().await;
    let blobs = fs::read_dir(format!("{dir}/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    for blob in blobs {
        let mut bytes = fs::read(&blob).unwrap();
        // Documents are as they were; every layer is another one.
        if !bytes.starts_with(b"{") {
            bytes[600] ^= 1;
            fs::write(&blob, bytes).unwrap();
        }
    }
    let missing = format!("{host}/nothing:1");
    let sources = [format!("type=local,src={dir}"), missing, "type=local,src=/nonexistent".to_owned()];
    let flags: Vec<&str> = sources.iter().flat_map(|source| ["--cache-from", source.as_str()]).collect();
    let (_, progress) = other.build(SMALL, &flags);
    assert!(progress.contains("WARNING: local cache import at /nonexistent not found"), "{progress}");
    assert_eq!(progress.matches("CACHED").count(), 0, "nothing damaged is taken: {progress}");
    assert!(progress.contains("is made again, its cache cannot be used"), "{progress}");
    other.finish().await;
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_builds_leave_is_shown_and_goes() {
    let lab = Lab::new().await;
    lab.build("FROM base:1\nRUN echo one > /one\nRUN echo two > /two\n", &["-t", "kept:1"]);
    let row = || {
        let text = lab.ok(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}"]).out;
        text.lines().find(|line| line.starts_with("Build Cache")).unwrap().to_owned()
    };
    let verbose = lab.ok(&["system", "df", "-v"]).out;
    assert!(verbose.contains("regular") && verbose.contains("RUN /bin/sh -c echo one"), "{verbose}");
    assert!(!row().starts_with("Build Cache|0|"), "{}", row());

    // Without an answer nothing goes; what the image has too stays unless all is to go.
    let asked = lab.says(&["builder", "prune"], None);
    assert!(asked.err.contains("dangling build cache"), "{asked:?}");
    lab.ok(&["build", "prune", "-f", "--filter", "type=regular"]);
    let (_, progress) = lab.build("FROM base:1\nRUN echo one > /one\nRUN echo two > /two\n", &[]);
    assert_eq!(progress.matches("CACHED").count(), 2, "{progress}");
    lab.ok(&["image", "prune", "-af"]);
    let old = lab.ok(&["builder", "prune", "-f", "--filter", "until=24h", "--filter", "type=regular"]).out;
    assert_eq!(old, "Total:\t0B\n");
    let gone = lab.ok(&["builder", "prune", "-af"]).out;
    assert!(gone.starts_with("ID ") && gone.contains("\nTotal:\t"), "{gone}");
    assert!(!gone.contains("space: 0B"), "{gone}");
    assert_eq!(row(), "Build Cache|0|0B");

    let tar = path(&lab, "base.tar");
    lab.ok(&["import", "-c", "ENV PATH=/bin", &tar, "base:1"]);
    lab.build("FROM base:1\nRUN echo three > /three\n", &[]);
    lab.ok(&["system", "prune", "-af"]);
    assert_eq!(row(), "Build Cache|0|0B");
    lab.finish().await;
}

/// The daemon dies in every step of a build: nothing is half there, nothing stays behind, and what was made is used.
#[tokio::test(flavor = "multi_thread")]
async fn builds_survive_the_daemons_death() {
    let mut lab = Lab::new().await;
    let points = [
        "pod.record",
        "pod.cgroup",
        "pod.network",
        "pod.ready",
        "ctr.record",
        "ctr.rootfs",
        "ctr.cgroup",
        "ctr.process",
        "ctr.created",
        "image.layer",
        "build.step",
        "image.layers",
        "image.put",
    ];
    for (number, point) in points.into_iter().enumerate() {
        let dockerfile =
            format!("FROM base:1\nRUN echo {number} > /one\nCOPY src/page /page\nRUN cat /page /one > /two\nCMD cat /two\n");
        fs::write(lab.at("Dockerfile"), dockerfile).unwrap();
        let context = lab.context().display().to_string();
        lab.daemon.terminate();
        lab.daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        lab.daemon.run().await;
        let died = lab.says(&["build", "-t", "dies:1", &context], None);
        assert_ne!(died.code, 0, "{point}: {died:?}");
        lab.daemon.wait_death();
        lab.daemon.set_env("CREEL_FAILPOINTS", None);
        lab.daemon.run().await;
        check::nothing_left(&lab.daemon);
        check::store_is_sound(&lab.daemon);
        let known = lab.says(&["image", "inspect", "dies:1"], None).code;
        assert_eq!(known == 0, point == "image.put", "{point}");
        lab.ok(&["build", "-t", "dies:1", &context]);
        assert_eq!(lab.ok(&["run", "--rm", "dies:1"]).out, format!("first\n{number}\n"), "{point}");
        lab.ok(&["rmi", "dies:1"]);
    }
    lab.finish().await;
}

/// A client that is ended ends its build.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_build() {
    let lab = Lab::new().await;
    fs::write(lab.at("Dockerfile"), "FROM base:1\nRUN echo begun; sleep 1000\n").unwrap();
    let mut command = Command::new(bin("creel"));
    command.args(["build", "--progress", "plain", "-t", "never:1"]).arg(lab.context());
    command.env("CREEL_SOCKET", lab.daemon.socket()).env("HOME", lab.home.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")), "{}", lab.daemon.log());
    child.kill().unwrap();
    child.wait().unwrap();
    check::nothing_left(&lab.daemon);
    assert_eq!(lab.says(&["image", "inspect", "never:1"], None).code, 1);
    lab.build("FROM base:1\nRUN echo again\n", &["-t", "next:1"]);
    lab.finish().await;
}
