//! AppArmor and SELinux: what this machine has is enforced, what it lacks is refused or means nothing, as the CRI says.
//! The guest of hack/test-vm has AppArmor; booted for it, SELinux.

use api::runtime::{self as cri, security_profile::ProfileType};

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

async fn ground(name: &str) -> (Daemon, Runtime, cri::PodSandboxConfig, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod(name);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    (daemon, runtime, config, pod)
}

fn apparmor_is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

fn selinux_is_on() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}

fn sleeper(name: &str) -> cri::ContainerConfig {
    pods::container(name, BUSYBOX, "sleep 1000")
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn profile(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

/// What confines a process of a container, as the kernel says it.
async fn confinement(runtime: &mut Runtime, id: &str) -> String {
    pods::exec(runtime, id, &["cat", "/proc/self/attr/apparmor/current"]).await.1
}

/// A profile that is not there is an error on every machine, in the old field and in the new one.
#[tokio::test(flavor = "multi_thread")]
#[expect(deprecated, reason = "the old field is under test")]
async fn apparmor_profiles_that_are_not_loaded_are_refused() {
    let (daemon, mut runtime, config, pod) = ground("unloaded").await;
    let mut new = sleeper("new");
    security(&mut new).apparmor = profile(ProfileType::Localhost, "creel-no-such-profile");
    let mut old = sleeper("old");
    security(&mut old).apparmor_profile = "localhost/creel-no-such-profile".into();
    for bad in [new, old] {
        let error = pods::create(&mut runtime, &pod, &config, &bad).await.unwrap_err();
        assert!(error.message().contains("AppArmor profile \"creel-no-such-profile\""), "{error}");
    }
    let mut wins = sleeper("wins");
    security(&mut wins).apparmor = profile(ProfileType::Unconfined, "");
    security(&mut wins).apparmor_profile = "localhost/creel-no-such-profile".into();
    pods::run(&mut runtime, &pod, &config, &wins).await;
    daemon.finish().await;
}

/// The default profile, also when nothing is said, for the container and for what is executed in it; privileged ones have
/// none. It survives the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn the_default_apparmor_profile() {
    let (mut daemon, mut runtime, config, pod) = ground("default").await;
    let mut asked = sleeper("asked");
    security(&mut asked).apparmor = profile(ProfileType::RuntimeDefault, "");
    let asked = pods::run(&mut runtime, &pod, &config, &asked).await;
    if !apparmor_is_on() {
        eprintln!("SKIPPED: this kernel has no AppArmor; RuntimeDefault was ignored, as it is to be");
        return daemon.finish().await;
    }
    let silent = pods::run(&mut runtime, &pod, &config, &sleeper("silent")).await;
    for id in [&asked, &silent] {
        assert_eq!(confinement(&mut runtime, id).await, "creel-default (enforce)");
        let main = pods::exec(&mut runtime, id, &["cat", "/proc/1/attr/apparmor/current"]).await.1;
        assert_eq!(main, "creel-default (enforce)");
    }
    let mut privileged = sleeper("privileged");
    security(&mut privileged).privileged = true;
    let privileged = pods::run(&mut runtime, &pod, &config, &privileged).await;
    assert_eq!(confinement(&mut runtime, &privileged).await, "unconfined");
    let mut free = sleeper("free");
    security(&mut free).apparmor = profile(ProfileType::Unconfined, "");
    let free = pods::run(&mut runtime, &pod, &config, &free).await;
    assert_eq!(confinement(&mut runtime, &free).await, "unconfined");
    // What the profile denies is denied to root with all its capabilities; what it does not mention goes on.
    let mut strong = sleeper("strong");
    let capabilities = cri::Capability { add_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut strong).capabilities = Some(capabilities);
    let strong = pods::run(&mut runtime, &pod, &config, &strong).await;
    let (code, _, said) = pods::exec(&mut runtime, &strong, &["mount", "-t", "tmpfs", "none", "/tmp"]).await;
    assert!(code != 0 && said.contains("denied"), "{code} {said}");
    let (code, _, said) = pods::exec(&mut runtime, &strong, &["sh", "-c", "echo x >/root/x && cat /root/x && kill -0 1"]).await;
    assert_eq!(code, 0, "{said}");
    daemon.kill();
    daemon.run().await;
    runtime = daemon.runtime().await;
    assert_eq!(confinement(&mut runtime, &silent).await, "creel-default (enforce)");
    daemon.finish().await;
}

/// Labels are accepted where SELinux is off; a malformed one is refused everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn selinux_labels() {
    let (daemon, mut runtime, config, pod) = ground("labels").await;
    let label = |level: &str| {
        Some(cri::SeLinuxOption {
            user: "system_u".into(),
            role: "system_r".into(),
            r#type: "container_t".into(),
            level: level.into(),
        })
    };
    let mut good = sleeper("good");
    security(&mut good).selinux_options = label("s0:c4,c5");
    let good = pods::run(&mut runtime, &pod, &config, &good).await;
    if selinux_is_on() {
        let label = pods::exec(&mut runtime, &good, &["cat", "/proc/self/attr/current"]).await.1;
        assert_eq!(label.trim_end_matches('\0'), "system_u:system_r:container_t:s0:c4,c5");
    } else {
        eprintln!("SKIPPED: SELinux is off: labels were accepted and mean nothing");
    }
    let mut bad = sleeper("bad");
    security(&mut bad).selinux_options = label("s0,c4,c5");
    let error = pods::create(&mut runtime, &pod, &config, &bad).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert!(error.message().contains("selinux_options.level"), "{error}");
    daemon.finish().await;
}

/// EX-26: directories of the system are never relabelled, by whatever name; others may be.
#[tokio::test(flavor = "multi_thread")]
async fn ex26_system_directories_are_not_relabelled() {
    let (daemon, mut runtime, config, pod) = ground("relabel").await;
    let dir = daemon.dir.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    let link = daemon.dir.path().join("link");
    std::os::unix::fs::symlink("/usr", &link).unwrap();
    let with = |name: &str, host: &str| {
        let mut container = sleeper(name);
        container.mounts = vec![cri::Mount {
            container_path: "/volume".into(),
            host_path: host.into(),
            readonly: true,
            selinux_relabel: true,
            ..Default::default()
        }];
        container
    };
    for host in ["/", "/etc", "/usr", "/home", "/var/lib", "/usr/bin", link.to_str().unwrap()] {
        let error = pods::create(&mut runtime, &pod, &config, &with("bad", host)).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{host}: {error}");
        assert!(error.message().contains("relabel") && error.message().contains("of the system"), "{host}: {error}");
    }
    pods::run(&mut runtime, &pod, &config, &with("good", dir.to_str().unwrap())).await;
    daemon.finish().await;
}
