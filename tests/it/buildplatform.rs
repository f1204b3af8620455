//! `creel build --platform`: for other machines, as long as nothing of theirs is to run; for several, into an index.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    build::Lab,
    image::{ARCH, Image, Layer, digest},
    registry::Registry,
};

/// A machine that this one never is.
const OTHER: &str = "s390x";

/// An image for this machine and another one under one name: `/arch` tells them apart.
fn both(registry: &Registry) -> String {
    let mut entries = Vec::new();
    for arch in [ARCH, OTHER] {
        let layer = Layer::new().dir("etc").file("arch", 0o644, arch.as_bytes());
        let layer = layer.file("etc/passwd", 0o644, b"app:x:77:88::/:/bin/sh\n").file("etc/group", 0o644, b"");
        let manifest = Image::of(&[layer.tar()]).push_for(registry, "both", arch, arch);
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
            "platform": {"os": "linux", "architecture": arch},
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
    registry.push_manifest("both", "1", kind, &serde_json::to_vec(&index).unwrap());
    format!("127.0.0.1:{}/both:1", registry.port)
}

/// A file of a layout that was unpacked.
fn document(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

fn blob(dir: &Path, descriptor: &Value) -> Value {
    document(dir, &format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/")))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_platform_is_copied_and_described() {
    let (lab, registry) = (Lab::new().await, Registry::empty());
    let both = both(&registry);
    let other = format!("linux/{OTHER}");
    let file = format!(
        "FROM {both}\nARG TARGETARCH\nARG BUILDPLATFORM\nENV FOR=$TARGETARCH FROM=$BUILDPLATFORM\nWORKDIR /w\n\
         COPY --chown=app src/page .\nCMD [\"/run\"]\n"
    );
    let arch = |name: &str| lab.ok(&["image", "inspect", "-f", "{{.Architecture}}", name]).out.trim().to_owned();
    let out = lab.home.path().join("out");
    let local = format!("type=local,dest={}", out.display());
    let (native, _) = lab.build(&file, &["-t", "native:1"]);
    let (foreign, progress) = lab.build(&file, &["-t", "foreign:1", "--platform", &other, "--load", "-o", &local]);
    assert_ne!(native, foreign, "{progress}");
    assert_eq!(fs::read_to_string(out.join("arch")).unwrap(), OTHER);
    assert_eq!(fs::read_to_string(out.join("w/page")).unwrap(), "first\n");
    assert_eq!((arch("native:1"), arch("foreign:1"), arch(&both)), (ARCH.into(), OTHER.into(), ARCH.into()));
    let env = lab.ok(&["image", "inspect", "-f", "{{json .Config.Env}}", "foreign:1"]).out;
    assert!(env.contains(&format!("FOR={OTHER}")) && env.contains(&format!("FROM=linux/{ARCH}")), "{env}");
    // The same once more, and from what was made of it; nothing of this machine's is taken for it.
    assert_eq!(lab.build(&file, &["--platform", &other]).0, foreign);
    let (_, progress) = lab.build("FROM foreign:1\nLABEL a=b\n", &["-t", "foreign:2", "--platform", &other]);
    assert_eq!(arch("foreign:2"), OTHER, "{progress}");
    let (_, progress) = lab.build("FROM scratch\nCOPY src/page /\n", &["-t", "foreign:3", "--platform", &other]);
    assert_eq!(arch("foreign:3"), OTHER, "{progress}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_platform_is_run() {
    let (lab, registry) = (Lab::new().await, Registry::empty());
    let both = both(&registry);
    let other = format!("linux/{OTHER}");
    let told = lab.fails(&format!("FROM {both} AS a\nFROM a\nCOPY src/page /\nRUN true\n"), &["--platform", &other]);
    assert!(told.contains("nothing is emulated") && told.contains("   4 | >>> RUN true"), "{told}");
    assert!(!told.contains("[stage-1"), "nothing was begun: {told}");
    let told = lab.fails(&format!("FROM --platform={other} {both}\nRUN true\n"), &[]);
    assert!(told.contains("nothing is emulated") && told.contains("   2 | >>> RUN true"), "{told}");
    // What an image makes its users run is found out later.
    lab.build(&format!("FROM {both}\nONBUILD RUN true\n"), &["-t", "trigger:1", "--platform", &other]);
    let told = lab.fails("FROM trigger:1\n", &["--platform", &other]);
    assert!(told.contains("nothing is emulated"), "{told}");
    for (file, args, part) in [
        ("FROM base:1\n", vec!["--platform", &other], "the one that is here is for linux/"),
        ("FROM base:1\n", vec!["--platform", "linux/amd64,linux/arm64"], "several platforms become an index"),
        ("FROM base:1\n", vec!["--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest=x"], "use the oci exporter"),
        ("FROM --platform=nonsense base:1\n", vec![], "not OS/ARCHITECTURE"),
    ] {
        let told = lab.fails(file, &args);
        assert!(told.contains(part), "{file} {args:?}: {told}");
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_platforms_become_an_index() {
    let (lab, registry) = (Lab::new().await, Registry::empty());
    let both = both(&registry);
    let file = format!(
        "FROM --platform=$BUILDPLATFORM base:1 AS compile\nRUN echo once >> /compiled\nARG TARGETARCH\n\
         RUN echo compiled for $TARGETARCH > /program\nFROM {both}\nCOPY --from=compile /program /program\n"
    );
    let (platforms, tar) = (format!("linux/{ARCH},linux/{OTHER}"), lab.home.path().join("several.tar"));
    let name = format!("127.0.0.1:{}/several:1", registry.port);
    let archive = format!("type=oci,dest={}", tar.display());
    let (_, progress) = lab.build(&file, &["-t", &name, "--platform", &platforms, "-o", &archive, "--push"]);
    assert!(progress.contains(&format!("[linux/{OTHER} compile 3/3] RUN echo compiled")), "{progress}");
    assert_eq!(progress.matches("CACHED").count(), 1, "what is the same for both is made once: {progress}");
    let dir = lab.home.path().join("several");
    fs::create_dir(&dir).unwrap();
    assert!(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&dir).status().unwrap().success());
    let top = document(&dir, "index.json");
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1, "{top}");
    let index = blob(&dir, &top["manifests"][0]);
    let found: Vec<(&Value, Value)> =
        index["manifests"].as_array().unwrap().iter().map(|m| (&m["platform"], blob(&dir, m))).collect();
    for ((platform, manifest), arch) in found.iter().zip([ARCH, OTHER]) {
        assert_eq!(**platform, json!({"architecture": arch, "os": "linux"}));
        assert_eq!(blob(&dir, &manifest["config"])["architecture"], arch);
    }
    // What was pushed is found again for each of them.
    for arch in [ARCH, OTHER] {
        let out = lab.home.path().join(arch);
        let local = format!("type=local,dest={}", out.display());
        lab.makes(&format!("FROM {name}\n"), &["--platform", &format!("linux/{arch}"), "-o", &local]);
        assert_eq!(fs::read_to_string(out.join("program")).unwrap(), format!("compiled for {arch}\n"));
        assert_eq!(fs::read_to_string(out.join("arch")).unwrap(), arch);
    }
    // An archive of several is loaded as what runs here.
    lab.ok(&["load", "-i", tar.to_str().unwrap()]);
    lab.finish().await;
}
