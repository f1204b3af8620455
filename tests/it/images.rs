//! Images from a real registry: good ones, broken ones, hostile ones.

use api::runtime as cri;

use crate::{
    daemon::Daemon,
    image::{Image, Layer, digest, gzip},
    pods::{self, BUSYBOX},
    registry::{self, Registry},
};

async fn pull(daemon: &Daemon, image: &str) -> Result<String, tonic::Status> {
    let request = cri::PullImageRequest { image: Some(pods::spec(image)), ..Default::default() };
    Ok(daemon.images().await.pull_image(request).await?.into_inner().image_ref)
}

async fn image_status(daemon: &Daemon, image: &str) -> Option<cri::Image> {
    let request = cri::ImageStatusRequest { image: Some(pods::spec(image)), verbose: false };
    daemon.images().await.image_status(request).await.unwrap().into_inner().image
}

async fn remove(daemon: &Daemon, image: &str) {
    daemon.images().await.remove_image(cri::RemoveImageRequest { image: Some(pods::spec(image)) }).await.unwrap();
}

/// Runs a script in an image and answers its output.
async fn output_of(daemon: &Daemon, image: &str, script: &str) -> String {
    let name = image.replace(['/', ':', '.'], "-");
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod(&name);
    config.log_directory = daemon.dir.path().join("logs").display().to_string();
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container(&name, image, script)).await;
    let status = pods::wait_exit(&mut runtime, &id).await;
    let text = pods::log_text(&daemon.dir.path().join("logs").join(format!("{name}.log")));
    assert_eq!(status.exit_code, 0, "{text}");
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_everywhere_and_removal_takes_all_names() {
    let daemon = Daemon::start().await;
    let id = pods::pull(&daemon, BUSYBOX).await;
    assert_eq!(pods::pull(&daemon, "docker.io/library/busybox:latest").await, id);
    assert!(id.starts_with("sha256:"), "{id}");
    let list = daemon.images().await.list_images(cri::ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].id.as_str(), list[0].repo_tags.len(), list[0].repo_digests.len()), (id.as_str(), 2, 1), "{list:?}");
    assert!(list[0].size > 0);
    let by_digest = list[0].repo_digests[0].clone();
    for name in ["busybox:1.35", "docker.io/library/busybox:1.35", "busybox", &id, &id["sha256:".len()..], &by_digest] {
        assert_eq!(image_status(&daemon, name).await.unwrap_or_else(|| panic!("{name}")).id, id);
    }
    assert!(image_status(&daemon, "docker.io/library/absent:1").await.is_none(), "absent is no error");
    remove(&daemon, "busybox:1.35").await;
    assert!(image_status(&daemon, "busybox:latest").await.is_none(), "all names went");
    remove(&daemon, &id).await;
    let left: Vec<_> = walk(&daemon.root().join("layers")).into_iter().filter(|p| p.is_file()).collect();
    assert!(left.is_empty(), "bytes are freed at once: {left:?}");
    daemon.finish().await;
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_gzip_and_zstd_layers_whiteouts_and_many_layers() {
    let daemon = Daemon::start().await;
    for form in ["tar", "zstd", "single", "manylayers"] {
        let image = format!("docker.io/test/{form}:1");
        pods::pull(&daemon, &image).await;
        let script = if form == "manylayers" { "ls /l | wc -l" } else { "echo 30" };
        assert_eq!(output_of(&daemon, &image, script).await, "30\n", "{form}");
    }
    pods::pull(&daemon, "docker.io/test/whiteout:1").await;
    let text = output_of(&daemon, "docker.io/test/whiteout:1", "ls /d; ls /o; ls /f 2>&1 || true").await;
    assert_eq!(text, "b\nz\nls: /f: No such file or directory\n");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_image_says_is_what_runs() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, "docker.io/test/config:1").await;
    let status = image_status(&daemon, "docker.io/test/config:1").await.unwrap();
    assert_eq!(status.username, "nobody");
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod("config");
    config.log_directory = daemon.dir.path().join("logs").display().to_string();
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut container = pods::container("c", "docker.io/test/config:1", "");
    container.command.clear();
    container.args = vec!["trap 'exit 77' USR1; id -u; pwd; echo $FOO; echo > /data/x; sleep 1000 & wait".into()];
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let log = daemon.dir.path().join("logs/c.log");
    for _ in 0..100 {
        if pods::log_text(&log).lines().count() >= 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(pods::log_text(&log).starts_with("65534\n/work\nbar\n"), "{}", pods::log_text(&log));
    let started = std::time::Instant::now();
    runtime.stop_container(cri::StopContainerRequest { container_id: id.clone(), timeout: 20 }).await.unwrap();
    assert!(started.elapsed().as_secs() < 15, "SIGUSR1 of the image ends it");
    assert_eq!(pods::status(&mut runtime, &id).await.exit_code, 77);
    daemon.finish().await;
}

/// A layer that is not what the manifest or the config says is never visible, and heals with a good pull.
#[tokio::test(flavor = "multi_thread")]
async fn im06_im07_wrong_digests_are_refused() {
    let (daemon, registry) = (Daemon::start().await, Registry::empty());
    daemon.mirror("docker.io", registry.port);
    let tar = Layer::busybox().tar();
    let mut wrong_diff = Image::of(std::slice::from_ref(&tar));
    wrong_diff.diff_ids = vec![digest(b"something else")];
    wrong_diff.push(&registry, "test/wrongdiff", "1");
    let mut fewer = Image::of(&[tar.clone(), Layer::new().file("x", 0o644, b"x").tar()]);
    fewer.diff_ids.pop();
    fewer.push(&registry, "test/fewer", "1");
    let mut garbage = Image::of(std::slice::from_ref(&tar));
    garbage.layers = vec![b"this is not gzip".to_vec()];
    garbage.push(&registry, "test/garbage", "1");
    let mut truncated = Image::of(std::slice::from_ref(&tar));
    let cut = gzip(&tar);
    truncated.layers = vec![cut[..cut.len() / 2].to_vec()];
    truncated.push(&registry, "test/truncated", "1");
    for name in ["wrongdiff", "fewer", "garbage", "truncated"] {
        let image = format!("docker.io/test/{name}:1");
        let error = pull(&daemon, &image).await.expect_err(name);
        assert!(error.message().contains(name), "{name}: {error}");
        assert!(image_status(&daemon, &image).await.is_none(), "{name} is not visible");
    }
    let good = Image::of(&[tar]);
    good.push(&registry, "test/good", "1");
    pull(&daemon, "docker.io/test/good:1").await.expect("a good image still pulls");
    let missing = pull(&daemon, "docker.io/test/absent:1").await.expect_err("absent");
    assert_eq!(missing.code(), tonic::Code::NotFound, "{missing}");
    daemon.finish().await;
}

/// IM-08: archives that try to write outside their layer.
#[tokio::test(flavor = "multi_thread")]
async fn im08_hostile_archives_stay_inside() {
    let (daemon, registry) = (Daemon::start().await, Registry::empty());
    daemon.mirror("docker.io", registry.port);
    let canary = tempfile::tempdir().unwrap();
    std::fs::write(canary.path().join("kept"), "kept").unwrap();
    let out = canary.path().to_str().unwrap().trim_start_matches('/').to_owned();
    let corpus: Vec<(&str, Vec<u8>)> = vec![
        ("dotdot", Layer::new().file(&format!("../../../../../{out}/a"), 0o644, b"x").tar()),
        ("absolute", Layer::new().file(&format!("/{out}/a"), 0o644, b"x").tar()),
        ("symlink", Layer::new().symlink("l", &format!("/{out}")).file("l/a", 0o644, b"x").tar()),
        ("hardlink", Layer::new().link("l", &format!("/{out}/kept")).tar()),
        ("whiteout", Layer::new().symlink("l", &format!("/{out}")).file("l/.wh.kept", 0o644, b"").tar()),
        ("opaque", Layer::new().symlink("l", &format!("/{out}")).file("l/.wh..wh..opq", 0o644, b"").tar()),
        ("dirs", Layer::new().symlink("l", &format!("/{out}")).dir("l/").tar()),
    ];
    for (name, tar) in corpus {
        let repository = format!("test/{name}");
        Image::of(&[Layer::busybox().tar(), tar]).push(&registry, &repository, "1");
        // Refused or contained: either way nothing happens outside.
        pull(&daemon, &format!("docker.io/{repository}:1")).await.ok();
        let entries: Vec<_> = std::fs::read_dir(canary.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(entries, ["kept"], "{name}");
        assert_eq!(std::fs::read_to_string(canary.path().join("kept")).unwrap(), "kept", "{name}");
    }
    daemon.finish().await;
}

/// F-44: many pulls of one image at once are one pull.
#[tokio::test(flavor = "multi_thread")]
async fn f44_pulls_are_shared_and_a_cancelled_one_leaves_nothing() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", registry::shared());
    let pulls = (0..20).map(|_| pull(&daemon, BUSYBOX));
    let ids: Vec<_> = futures_util::future::join_all(pulls).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.windows(2).all(|w| w[0] == w[1]));
    remove(&daemon, BUSYBOX).await;
    for _ in 0..10 {
        tokio::time::timeout(std::time::Duration::from_millis(3), pull(&daemon, "docker.io/library/nginx:latest")).await.ok();
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(image_status(&daemon, "docker.io/library/nginx:latest").await.is_none_or(|i| !i.id.is_empty()));
    pull(&daemon, "docker.io/library/nginx:latest").await.expect("after cancelled attempts");
    daemon.finish().await;
}

/// Removing an image under a running container: the container stays whole, the bytes go when it goes.
#[tokio::test(flavor = "multi_thread")]
async fn f62_an_image_in_use_can_be_removed() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("inuse");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    remove(&daemon, BUSYBOX).await;
    assert!(image_status(&daemon, BUSYBOX).await.is_none());
    assert_eq!(pods::exec(&mut runtime, &id, &["cat", "/etc/group"]).await.0, 0);
    pods::pull(&daemon, BUSYBOX).await;
    remove(&daemon, BUSYBOX).await;
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    for _ in 0..100 {
        if walk(&daemon.root().join("layers")).iter().all(|p| p.is_dir()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(walk(&daemon.root().join("layers")).iter().all(|p| p.is_dir()), "freed with the last user");
    daemon.finish().await;
}

/// Basic authentication over TLS with a CA of our own, credentials from the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_with_tls() {
    let daemon = Daemon::start().await;
    let tls = tempfile::tempdir().unwrap();
    make_certificates(tls.path());
    let at = |name: &str| tls.path().join(name).display().to_string();
    let extra = format!(
        "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: it, path: {}}}\n",
        at("server.crt"),
        at("server.key"),
        at("htpasswd")
    );
    let registry = Registry::over(&crate::daemon::cache("registry"), &extra);
    let host = format!("127.0.0.1:{}", registry.port);
    let image = format!("{host}/library/busybox:1.35");
    let hosts = daemon.dir.path().join("certs.d").join(&host);
    std::fs::create_dir_all(&hosts).unwrap();
    let write = |ca: &str| {
        std::fs::write(hosts.join("hosts.toml"), format!("server = \"https://{host}\"\n[host.\"https://{host}\"]\n{ca}")).unwrap()
    };
    write("");
    let untrusted = pull(&daemon, &image).await.expect_err("an unknown CA");
    // The word that a kubelet makes a reason of.
    assert!(untrusted.message().starts_with("RegistryUnavailable") && untrusted.message().contains("TLS"), "{untrusted}");
    write(&format!("ca = \"{}\"\n", at("ca.crt")));
    let anonymous = pull(&daemon, &image).await.expect_err("no credentials");
    assert_eq!(anonymous.code(), tonic::Code::PermissionDenied, "{anonymous}");
    let with = |password: &str| cri::PullImageRequest {
        image: Some(pods::spec(&image)),
        auth: Some(cri::AuthConfig { username: "it".into(), password: password.into(), ..Default::default() }),
        ..Default::default()
    };
    let wrong = daemon.images().await.pull_image(with("wrong-secret")).await.expect_err("wrong password");
    assert!(!wrong.message().contains("wrong-secret"), "{wrong}");
    daemon.images().await.pull_image(with("secret")).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    assert!(!daemon.log().contains("secret"), "no secret in the log");
    daemon.finish().await;
}

fn make_certificates(dir: &std::path::Path) {
    let script = "set -e
        ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
        openssl req -x509 $ec -subj '/CN=it CA' -keyout ca.key -out ca.crt
        openssl req -x509 $ec -subj /CN=localhost -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt \
          -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth
        perl -e 'print \"it:\", crypt(\"secret\", q($2b$05$creellabcreellabcreelu)), \"\\n\"' >htpasswd";
    let output = std::process::Command::new("bash").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// IM-13: a flipped bit on disk is found, said, and healed by a pull.
#[tokio::test(flavor = "multi_thread")]
async fn im13_a_corrupted_blob_heals() {
    let mut daemon = Daemon::start().await;
    let id = pods::pull(&daemon, BUSYBOX).await;
    let config = daemon.root().join("blobs/sha256").join(&id["sha256:".len()..]);
    daemon.terminate();
    let mut bytes = std::fs::read(&config).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&config, bytes).unwrap();
    daemon.run().await;
    assert_eq!(pods::pull(&daemon, BUSYBOX).await, id);
    assert_eq!(output_of(&daemon, BUSYBOX, "echo whole").await, "whole\n");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fs_info_rises_and_falls() {
    let daemon = Daemon::start().await;
    let used = async || {
        let answer = daemon.images().await.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
        let fs = &answer.image_filesystems[0];
        assert!(std::path::Path::new(&fs.fs_id.as_ref().unwrap().mountpoint).is_dir());
        fs.used_bytes.as_ref().unwrap().value
    };
    let before = used().await;
    pods::pull(&daemon, BUSYBOX).await;
    assert!(used().await > before);
    remove(&daemon, BUSYBOX).await;
    assert_eq!(used().await, before);
    daemon.finish().await;
}

/// An image's volume is filled from the image, on the disk and not in /run, and goes with its container.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_images_are_on_the_disk() {
    let (daemon, registry) = (Daemon::start().await, Registry::empty());
    daemon.mirror("docker.io", registry.port);
    let mut image = Image::of(&[Layer::busybox().dir("data").file("data/seed", 0o644, b"seed").tar()]);
    image.config["Volumes"] = serde_json::json!({"/data": {}});
    image.push(&registry, "test/volume", "1");
    let name = "docker.io/test/volume:1";
    pull(&daemon, name).await.unwrap();
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("volume");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", name, "sleep 1000")).await;
    let volume = daemon.root().join("containers").join(&id).join("volumes/0");
    let copied = pods::exec(&mut runtime, &id, &["sh", "-c", "cat /data/seed >/data/copy && cat /data/copy"]).await;
    assert_eq!((copied.0, copied.1.as_str()), (0, "seed"));
    assert_eq!(std::fs::read(volume.join("copy")).unwrap(), b"seed");
    runtime.remove_container(cri::RemoveContainerRequest { container_id: id }).await.unwrap();
    assert!(!volume.exists());
    daemon.finish().await;
}
