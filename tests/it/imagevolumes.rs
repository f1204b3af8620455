//! Images as volumes (KEP-4639), their sub paths, and their digests in a container's status (KEP-5365).

use api::runtime as cri;
use tonic::Code;

use crate::{
    daemon::Daemon,
    image::{Image, Layer},
    pods::{self, BUSYBOX},
    registry::Registry,
};

fn volume(image: &str, path: &str, sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(cri::ImageSpec { image: image.into(), user_specified_image: "as-written".into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

fn with(name: &str, mounts: Vec<cri::Mount>) -> cri::ContainerConfig {
    cri::ContainerConfig { mounts, ..pods::container(name, BUSYBOX, "sleep 1000") }
}

/// An image of two layers, with links that lead in and that would lead out.
fn data() -> Image {
    let lower = Layer::new()
        .dir("d/")
        .dir("d/sub/")
        .file("d/sub/text", 0o644, b"lower")
        .file("d/gone", 0o644, b"x")
        .file("canary", 0o644, b"inside");
    let upper = Layer::new()
        .file("d/sub/text", 0o644, b"upper")
        .file("d/.wh.gone", 0o644, b"")
        .symlink("in", "d/sub")
        .symlink("absolute", "/d/sub")
        .symlink("out", "../../../../../../../../etc")
        .symlink("proc", "/proc/self/root")
        .symlink("loop", "loop");
    Image::of(&[lower.tar(), upper.tar()])
}

const DATA: &str = "docker.io/test/data:1";

async fn ready() -> (Daemon, Registry, String) {
    let (daemon, registry) = (Daemon::start().await, Registry::empty());
    pods::pull(&daemon, BUSYBOX).await;
    daemon.mirror("docker.io", registry.port);
    data().push(&registry, "test/data", "1");
    let request = cri::PullImageRequest { image: Some(pods::spec(DATA)), ..Default::default() };
    let id = daemon.images().await.pull_image(request).await.unwrap().into_inner().image_ref;
    (daemon, registry, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_a_read_only_volume_and_stays_while_it_is_one() {
    let (mut daemon, _registry, id) = ready().await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("volume");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let container = with("c", vec![volume(DATA, "/data", ""), volume(BUSYBOX, "/tools", "bin")]);
    let made = pods::run(&mut runtime, &pod, &config, &container).await;
    let shown = pods::status(&mut runtime, &made).await.mounts;
    let spec = shown[0].image.clone().unwrap();
    assert_eq!((spec.image.as_str(), spec.image_ref.as_str(), spec.user_specified_image.as_str()), (&*id, &*id, "as-written"));
    assert_eq!((shown[0].container_path.as_str(), shown[0].host_path.as_str(), shown[0].readonly), ("/data", "", true));
    assert_eq!(shown[1].image_sub_path, "bin");
    let script = "cat /data/d/sub/text; ls /data/d; touch /data/x && echo written; mknod /data/n c 1 3 && echo written; /tools/busybox echo runs";
    let (_, output, errors) = pods::exec(&mut runtime, &made, &["sh", "-c", script]).await;
    assert_eq!(output, "uppersub\nruns", "{errors}");
    assert!(errors.contains("Read-only file system"), "{errors}");
    let (_, table, _) = pods::exec(&mut runtime, &made, &["grep", " /data ", "/proc/self/mountinfo"]).await;
    assert!(table.contains(" ro,nodev"), "{table}");
    // The image may be removed; what it consists of stays, also for the next daemon.
    let images = async |daemon: &Daemon| {
        let remove = cri::RemoveImageRequest { image: Some(pods::spec(&id)) };
        daemon.images().await.remove_image(remove).await.unwrap();
    };
    daemon.kill();
    daemon.run().await;
    let mut runtime = daemon.runtime().await;
    images(&daemon).await;
    assert_eq!(pods::status(&mut runtime, &made).await.mounts, shown, "as before the daemon's death");
    let (code, output, _) = pods::exec(&mut runtime, &made, &["cat", "/data/d/sub/text"]).await;
    assert_eq!((code, output.as_str()), (0, "upper"));
    let layers = || std::fs::read_dir(daemon.root().join("layers/sha256")).unwrap().count();
    let before = layers();
    runtime.remove_container(cri::RemoveContainerRequest { container_id: made }).await.unwrap();
    for _ in 0..100 {
        if layers() + 2 == before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(layers() + 2, before, "its layers went with its last user");
    let gone = pods::create(&mut runtime, &pod, &config, &with("d", vec![volume(DATA, "/data", "")])).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
    assert!(gone.message().starts_with("ImageVolumeMountFailed: image volume docker.io/test/data:1: "), "{gone}");
    daemon.finish().await;
}

/// CR-06: whatever links say, a sub path is inside of its image.
#[tokio::test(flavor = "multi_thread")]
async fn cr06_sub_paths_stay_inside() {
    let (daemon, _registry, _) = ready().await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("subpath");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let good = with(
        "good",
        vec![
            volume(DATA, "/a", "d/sub"),
            volume(DATA, "/b", "in"),
            volume(DATA, "/c", "absolute"),
            volume(DATA, "/f/file", "d/sub/text"),
            volume(DATA, "/g", "./d//sub/"),
        ],
    );
    let made = pods::run(&mut runtime, &pod, &config, &good).await;
    let command = ["sh", "-c", "cat /a/text /b/text /c/text /f/file /g/text; ls -d /a/../canary; echo x >/f/file"];
    let (code, output, errors) = pods::exec(&mut runtime, &made, &command).await;
    assert_eq!((code, output.as_str()), (1, "upperupperupperupperupper"), "{errors}");
    for (name, path) in [("missing", "no"), ("beneath", "canary/x"), ("loop", "loop"), ("out", "out/passwd"), ("proc", "proc/etc")]
    {
        let error = pods::create(&mut runtime, &pod, &config, &with(name, vec![volume(DATA, "/v", path)])).await.expect_err(path);
        assert!(error.message().starts_with("ImageVolumeMountFailed: ") && error.message().contains(path), "{error}");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    for (name, path) in [("up", "../x"), ("inner", "d/../../x"), ("root", "/d")] {
        let error = pods::create(&mut runtime, &pod, &config, &with(name, vec![volume(DATA, "/v", path)])).await.expect_err(path);
        assert!(error.message().starts_with("ImageVolumeMountFailed: config.mounts[0].image_sub_path: "), "{error}");
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_image_volume_is_said() {
    let (daemon, _registry, _) = ready().await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("wrong");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let good = || volume(DATA, "/v", "");
    let many = (0..100).map(|n| volume(DATA, &format!("/v{n}"), "")).collect();
    for (name, mounts, why) in [
        ("writable", vec![cri::Mount { readonly: false, ..good() }], "ImageVolumeMountFailed: config.mounts[0].readonly: "),
        ("both", vec![cri::Mount { host_path: "/etc".into(), ..good() }], "ImageVolumeMountFailed: config.mounts[0].host_path: "),
        ("travels", vec![cri::Mount { propagation: 1, ..good() }], "ImageVolumeMountFailed: config.mounts[0].propagation: "),
        ("many", many, "ImageVolumeMountFailed: image volume docker.io/test/data:1: 100 image volumes"),
        ("twice", vec![good(), good()], "container "),
        ("proc", vec![volume(DATA, "/proc/self", "")], "container "),
    ] {
        let error = pods::create(&mut runtime, &pod, &config, &with(name, mounts)).await.expect_err(name);
        assert!(error.message().starts_with(why), "{name}: {error}");
    }
    let all: Vec<_> = (0..40).map(|n| volume(DATA, &format!("/v/{n}"), "d/sub/text")).collect();
    let made = pods::run(&mut runtime, &pod, &config, &with("all", all)).await;
    let (_, output, _) = pods::exec(&mut runtime, &made, &["sh", "-c", "cat /v/*"]).await;
    assert_eq!(output, "upper".repeat(40));
    daemon.finish().await;
}
