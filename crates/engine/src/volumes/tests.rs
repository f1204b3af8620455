//! Volumes in a store of their own.

use super::*;

struct Lab {
    dir: tempfile::TempDir,
    volumes: Volumes,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let volumes = open(dir.path());
        Self { dir, volumes }
    }

    fn again(self) -> Self {
        let Self { dir, volumes } = self;
        drop(volumes);
        let volumes = open(dir.path());
        Self { dir, volumes }
    }

    fn names(&self) -> Vec<String> {
        self.volumes.list().into_iter().map(|volume| volume.name.to_string()).collect()
    }
}

fn open(dir: &std::path::Path) -> Volumes {
    Volumes::open(Arc::new(store::Store::open(dir.join("store")).unwrap()), Arc::default()).unwrap()
}

fn named(name: &str) -> NewVolume {
    NewVolume { name: name.to_owned(), ..NewVolume::default() }
}

fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 32])
}

#[test]
fn they_outlive_the_daemon() {
    let lab = Lab::new();
    let labels: BTreeMap<_, _> = [("a".to_owned(), "b".to_owned())].into();
    let made = lab.volumes.create(NewVolume { labels: labels.clone(), ..named("data") }).unwrap();
    assert!(made.mountpoint.is_dir() && !made.anonymous && made.labels == labels);
    assert_eq!(lab.volumes.create(named("data")).unwrap(), made, "made twice is made once");
    let anonymous = lab.volumes.create(named("")).unwrap();
    assert!(anonymous.anonymous && anonymous.name.as_str().len() == 64);
    std::fs::write(made.mountpoint.join("file"), vec![1; 10_000]).unwrap();
    let lab = lab.again();
    assert_eq!(lab.volumes.get("data").unwrap(), made);
    assert!(lab.volumes.size(&made) >= 10_000);
    let pruned = lab.volumes.prune(|volume| volume.anonymous).unwrap();
    assert_eq!(pruned.iter().map(|(volume, _)| volume.name.clone()).collect::<Vec<_>>(), [anonymous.name]);
    assert_eq!(lab.volumes.remove("data").unwrap().name, made.name);
    assert_eq!(lab.volumes.remove("data").unwrap_err().to_string(), "get data: no such volume");
    assert_eq!(lab.again().names(), Vec::<String>::new());
}

#[test]
fn what_is_in_use_stays() {
    let lab = Lab::new();
    let names = lab.volumes.claim(container(1), vec![named("shared"), named("")]).unwrap();
    lab.volumes.claim(container(2), vec![named("shared")]).unwrap();
    let refused = lab.volumes.remove("shared").unwrap_err();
    let (one, two) = (container(1), container(2));
    assert_eq!(refused.to_string(), format!("remove shared: volume is in use - [{one}, {two}]"));
    assert_eq!(refused.kind(), model::ErrorKind::FailedPrecondition);
    assert!(lab.volumes.prune(|_| true).unwrap().is_empty());
    let lab = lab.again();
    lab.volumes.reclaim(container(1), &names);
    assert_eq!(lab.volumes.release(container(1), true).unwrap(), names[1..], "nobody's name goes with its container");
    assert_eq!(lab.names(), ["shared"]);
    let kept = lab.volumes.claim(container(3), vec![named("")]).unwrap();
    assert!(lab.volumes.release(container(3), false).unwrap().is_empty());
    assert!(lab.volumes.get(kept[0].as_str()).unwrap().used_by.is_empty());
    assert_eq!(lab.volumes.prune(|_| true).unwrap().len(), 2);
}

#[test]
fn a_claim_that_fails_claims_nothing() {
    let lab = Lab::new();
    assert!(lab.volumes.claim(container(1), vec![named("good"), named(""), named("b/d")]).is_err());
    assert_eq!(lab.names(), ["good"]);
    assert!(lab.volumes.get("good").unwrap().used_by.is_empty());
}

#[test]
fn binds_lead_elsewhere() {
    let lab = Lab::new();
    let target = lab.dir.path().join("elsewhere");
    let option = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let options: BTreeMap<_, _> =
        [option("type", "none"), option("o", "bind,ro"), option("device", target.to_str().unwrap())].into();
    let bind = lab.volumes.create(NewVolume { options: options.clone(), ..named("bind") }).unwrap();
    let missing = lab.volumes.place(&bind.name).unwrap_err();
    assert!(missing.to_string().starts_with("volume bind: its device "), "{missing}");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), "x").unwrap();
    assert_eq!(lab.volumes.place(&bind.name).unwrap(), uses::Place { path: target.clone(), readonly: true });
    let other = lab.volumes.create(NewVolume { options: [option("o", "bind"), option("device", "/")].into(), ..named("bind") });
    assert_eq!(other.unwrap_err().kind(), model::ErrorKind::AlreadyExists);
    lab.volumes.remove("bind").unwrap();
    assert!(target.join("file").exists());
}
