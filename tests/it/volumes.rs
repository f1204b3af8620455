//! Volumes, as docker's users know them.

use serde_json::Value;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

async fn ground() -> Daemon {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    daemon
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// What a command that must fail says, and its exit code.
fn refused(daemon: &Daemon, args: &[&str]) -> (i32, String) {
    let output = daemon.creel(args);
    assert!(!output.status.success(), "creel {args:?} should fail");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap().trim().to_owned())
}

fn run(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    daemon.creel_ok(&[&["run", "--rm"], flags, &[BUSYBOX, "sh", "-c", script]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_made_listed_and_removed() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.creel_ok(&["volume", "create", "--label", "tier=db", "data"]), "data");
    assert_eq!(daemon.creel_ok(&["volume", "create", "data"]), "data", "one that is there is found");
    let anonymous = daemon.creel_ok(&["volume", "create"]);
    assert!(anonymous.len() == 64 && anonymous.bytes().all(|c| c.is_ascii_hexdigit()), "{anonymous}");
    let listed = daemon.creel_ok(&["volume", "ls"]);
    assert_eq!(lines(&listed)[0], "DRIVER   VOLUME NAME");
    assert!(listed.contains("local    data\n") || listed.ends_with("local    data"), "{listed}");
    assert_eq!(daemon.creel_ok(&["volume", "ls", "-q", "--filter", "label=tier=db"]), "data");
    assert_eq!(daemon.creel_ok(&["volume", "ls", "-q", "--filter", "name=at"]), "data");
    assert_eq!(lines(&daemon.creel_ok(&["volume", "ls", "-q", "--filter", "dangling=true"])).len(), 2);
    let inspected: Value = serde_json::from_str(&daemon.creel_ok(&["volume", "inspect", "data"])).unwrap();
    assert_eq!(
        (&inspected[0]["Name"], &inspected[0]["Driver"], &inspected[0]["Scope"]),
        (&"data".into(), &"local".into(), &"local".into())
    );
    assert_eq!(inspected[0]["Labels"]["tier"], "db");
    assert!(std::path::Path::new(inspected[0]["Mountpoint"].as_str().unwrap()).is_dir());
    for (args, text) in [
        (&["volume", "inspect", "none"][..], "Error response from daemon: get none: no such volume"),
        (&["volume", "rm", "none"], "Error response from daemon: get none: no such volume"),
        (
            &["volume", "create", "a/b"],
            "Error response from daemon: create volume: \"a/b\" includes invalid characters for a local volume name",
        ),
        (&["volume", "create", "-o", "type=nfs", "x1"], "Error response from daemon: volume option type=\"nfs\""),
    ] {
        let (code, said) = refused(&daemon, args);
        assert!(code == 1 && said.starts_with(text), "{args:?}: {code} {said}");
    }
    daemon.creel_ok(&["volume", "rm", "-f", "none"]);
    let pruned = daemon.creel_ok(&["volume", "prune", "-f"]);
    assert!(pruned.starts_with(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")), "{pruned}");
    let pruned = daemon.creel_ok(&["volume", "prune", "-f", "-a", "--filter", "label!=tier"]);
    assert_eq!(pruned, "Total reclaimed space: 0B");
    assert_eq!(daemon.creel_ok(&["volume", "rm", "data"]), "data");
    assert_eq!(daemon.creel_ok(&["volume", "ls", "-q"]), "");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_outlive_their_containers_and_the_daemon() {
    let mut daemon = ground().await;
    run(&daemon, &["-v", "data:/data"], "echo kept > /data/file");
    let id = daemon.creel_ok(&["create", "-v", "data:/data:ro", BUSYBOX, "sh", "-c", "cat /data/file; touch /data/no"]);
    let in_use = format!("Error response from daemon: remove data: volume is in use - [{id}]");
    assert_eq!(refused(&daemon, &["volume", "rm", "data"]), (1, in_use.clone()));
    daemon.kill();
    daemon.run().await;
    assert_eq!(refused(&daemon, &["volume", "rm", "data"]), (1, in_use));
    assert_eq!(daemon.creel_ok(&["volume", "prune", "-a", "-f"]), "Total reclaimed space: 0B");
    let output = daemon.creel(&["start", "-a", &id]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"), "{output:?}");
    assert_eq!(run(&daemon, &["--volumes-from", &format!("{id}:ro")], "cat /data/file"), "kept");
    daemon.creel_ok(&["rm", &id]);
    assert_eq!(run(&daemon, &["-v", "data:/elsewhere"], "cat /elsewhere/file"), "kept");
    daemon.creel_ok(&["volume", "rm", "data"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_copies_what_the_image_has() {
    let daemon = ground().await;
    let look = "cd /var && find . | sort && stat -c '%a %u:%g' . spool/mail";
    let image = run(&daemon, &[], look);
    assert!(image.contains("./spool/mail"), "{image}");
    assert_eq!(run(&daemon, &["-v", "copied:/var"], look), image);
    assert_eq!(run(&daemon, &["-v", "copied:/var"], "rm -r /var/*; ls /var"), "");
    assert_eq!(run(&daemon, &["-v", "copied:/var"], look), image, "it was empty again");
    assert_eq!(run(&daemon, &["--mount", "type=volume,src=bare,dst=/var,volume-nocopy"], "ls -A /var"), "");
    run(&daemon, &["-v", "own:/elsewhere"], "echo mine > /elsewhere/mine");
    assert_eq!(run(&daemon, &["-v", "own:/var"], "ls -A /var"), "mine", "what is there is not touched");
    daemon.creel_ok(&["volume", "rm", "copied", "bare", "own"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_ones_belong_to_their_container() {
    let daemon = ground().await;
    let all = || lines(&daemon.creel_ok(&["volume", "ls", "-q"])).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(run(&daemon, &["-v", "/data"], "echo x > /data/file; cat /data/file"), "x");
    assert_eq!(all(), Vec::<String>::new(), "--rm takes them along");
    let id = daemon.creel_ok(&["create", "-v", "/data", "-v", "named:/named", BUSYBOX, "true"]);
    assert_eq!(all().len(), 2);
    daemon.creel_ok(&["rm", &id]);
    assert_eq!(all().len(), 2, "rm leaves them");
    let id = daemon.creel_ok(&["create", "-v", "/data", "-v", "named:/named", BUSYBOX, "true"]);
    daemon.creel_ok(&["rm", "-v", &id]);
    let left = all();
    assert_eq!(left.len(), 2, "rm -v takes the anonymous one of this container");
    assert!(left.contains(&"named".to_owned()), "{left:?}");
    daemon.creel_ok(&["volume", "prune", "-f"]);
    assert_eq!(all(), ["named"]);
    daemon.creel_ok(&["volume", "rm", "named"]);
    daemon.finish().await;
}

/// The daemon dies in the middle of everything: what is to be seen is whole, and the second attempt works.
#[tokio::test(flavor = "multi_thread")]
async fn death_leaves_no_halves() {
    let mut daemon = ground().await;
    for point in ["volume.create", "volume.copied", "volume.staged"] {
        daemon.terminate();
        daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        daemon.run().await;
        assert!(!daemon.creel(&["create", "--name", "c1", "-v", "copied:/var", BUSYBOX, "true"]).status.success(), "{point}");
        daemon.wait_death();
        daemon.set_env("CREEL_FAILPOINTS", None);
        daemon.run().await;
        for volume in lines(&daemon.creel_ok(&["volume", "ls", "-q"])) {
            let inspected: Value = serde_json::from_str(&daemon.creel_ok(&["volume", "inspect", volume])).unwrap();
            let found = std::fs::read_dir(inspected[0]["Mountpoint"].as_str().unwrap()).unwrap().count();
            assert_eq!(found, 0, "{point}: nothing of a copy is there before it is whole");
        }
        assert!(run(&daemon, &["-v", "copied:/var"], "ls /var").contains("spool"), "{point}");
        daemon.creel_ok(&["volume", "rm", "copied"]);
    }
    daemon.creel_ok(&["volume", "create", "gone"]);
    daemon.terminate();
    daemon.set_env("CREEL_FAILPOINTS", Some("volume.remove=kill:1"));
    daemon.run().await;
    assert!(!daemon.creel(&["volume", "rm", "gone"]).status.success());
    daemon.wait_death();
    daemon.set_env("CREEL_FAILPOINTS", None);
    daemon.run().await;
    daemon.creel_ok(&["volume", "rm", "gone"]);
    daemon.finish().await;
}
