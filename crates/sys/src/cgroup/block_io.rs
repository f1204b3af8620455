//! Block I/O: weights and rates per device.

use std::path::Path;

use model::{BlockDevice, BlockIo};

use super::{Group, Version, files};
use crate::Error;

impl Group {
    /// Sets weights and rates.
    ///
    /// # Errors
    /// write(2), with the file and the value; Missing: this kernel or its I/O scheduler has no such file.
    pub(super) fn apply_block_io(&self, wanted: &BlockIo) -> Result<(), Error> {
        let version = self.all.version();
        let controller = if version == Version::V1 { "blkio" } else { "" };
        let directory = self.directory(controller).ok_or_else(|| Error::Missing("blkio cgroup controller".to_owned()))?;
        match version {
            Version::V1 => apply_v1(&directory, wanted),
            Version::V2 => apply_v2(&directory, wanted),
        }
    }
}

/// Weights are BFQ's: CFQ with its files is gone since Linux 5.0.
fn apply_v1(group: &Path, wanted: &BlockIo) -> Result<(), Error> {
    if let Some(weight) = wanted.weight {
        set(group, "blkio.bfq.weight", &weight.to_string())?;
    }
    for device in &wanted.devices {
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight {
            set(group, "blkio.bfq.weight_device", &format!("{number} {weight}"))?;
        }
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", device.read_bps),
            ("blkio.throttle.write_bps_device", device.write_bps),
            ("blkio.throttle.read_iops_device", device.read_iops),
            ("blkio.throttle.write_iops_device", device.write_iops),
        ] {
            if let Some(rate) = rate {
                set(group, file, &format!("{number} {rate}"))?;
            }
        }
    }
    Ok(())
}

fn apply_v2(group: &Path, wanted: &BlockIo) -> Result<(), Error> {
    // BFQ's own file if it is there, else that of io.cost, whose weights go to 10000 where BFQ's go to 1000.
    let bfq = group.join("io.bfq.weight").exists();
    let (file, scale) = if bfq { ("io.bfq.weight", 1) } else { ("io.weight", 10) };
    if let Some(weight) = wanted.weight {
        set(group, file, &format!("default {}", u32::from(weight) * scale))?;
    }
    for device in &wanted.devices {
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight {
            set(group, file, &format!("{number} {}", u32::from(weight) * scale))?;
        }
        if let Some(rates) = rates_v2(device) {
            set(group, "io.max", &format!("{number} {rates}"))?;
        }
    }
    Ok(())
}

/// "rbps=1048576 wiops=100"; `None`: nothing said.
fn rates_v2(device: &BlockDevice) -> Option<String> {
    let rates = [("rbps", device.read_bps), ("wbps", device.write_bps), ("riops", device.read_iops), ("wiops", device.write_iops)];
    let said: Vec<String> = rates.iter().filter_map(|(key, rate)| rate.map(|rate| format!("{key}={rate}"))).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

fn set(group: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = group.join(file);
    if !path.exists() {
        return Err(Error::Missing(format!("{file} (a scheduler or controller of block I/O is not there)")));
    }
    files::write(&path, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> BlockIo {
        let device = BlockDevice {
            major: 8,
            minor: 0,
            weight: Some(50),
            read_bps: Some(1 << 20),
            write_iops: Some(10),
            ..BlockDevice::default()
        };
        BlockIo { weight: Some(80), devices: vec![device] }
    }

    fn directory(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
        dir
    }

    #[test]
    fn files_of_both_versions() {
        let v1 =
            ["blkio.bfq.weight", "blkio.bfq.weight_device", "blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"];
        let dir = directory(&v1);
        apply_v1(dir.path(), &wanted()).unwrap();
        let read = |dir: &tempfile::TempDir, file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(v1.map(|file| read(&dir, file)), ["80", "8:0 50", "8:0 1048576", "8:0 10"]);
        let dir = directory(&["io.weight", "io.max"]);
        apply_v2(dir.path(), &BlockIo { devices: Vec::new(), ..wanted() }).unwrap();
        assert_eq!(read(&dir, "io.weight"), "default 800");
        let rates = BlockIo { weight: None, devices: vec![BlockDevice { weight: None, ..wanted().devices[0] }] };
        apply_v2(dir.path(), &rates).unwrap();
        assert_eq!(read(&dir, "io.max"), "8:0 rbps=1048576 wiops=10");
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let error = apply_v1(directory(&[]).path(), &wanted()).unwrap_err();
        assert!(error.to_string().contains("blkio.bfq.weight"), "{error}");
    }
}
