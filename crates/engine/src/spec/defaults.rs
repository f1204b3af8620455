//! Paths that are hidden or read-only for people who do not say (R19). Kubelets always say.
//!
//! Data, with the reason of each; adding is always allowed.

/// Hidden: they tell of the host, or control it.
const MASKED: [&str; 13] = [
    // CVE-2018-10892: switches off the machine's devices
    "/proc/acpi",
    // who else plays sound
    "/proc/asound",
    // counts per interrupt: keystrokes of others
    "/proc/interrupts",
    // the kernel's memory
    "/proc/kcore",
    // keys of other users of the same uid
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    // CVE-2017-16539: removes disks
    "/proc/scsi",
    // processes of others, by their timers
    "/proc/timer_list",
    "/proc/timer_stats",
    // GHSA-7ww5-4wqc-m92c: power use tells what others compute
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/security",
];

/// Read-only: writing changes the host.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Paths hidden from containers of people who do not say which, on a machine whose CPUs are numbered below `cpus`.
pub fn default_masked_paths(cpus: usize) -> Vec<String> {
    let mut paths: Vec<_> = MASKED.iter().map(|path| (*path).to_owned()).collect();
    // How often each core throttled tells what others compute.
    paths.extend((0..cpus).map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle")));
    paths
}

/// Paths read-only for containers of people who do not say which.
pub fn default_readonly_paths() -> Vec<String> {
    READONLY.iter().map(|path| (*path).to_owned()).collect()
}

/// How many CPUs this machine may ever have, by /sys/devices/system/cpu/possible (`0-7`); 1 if that cannot be read.
pub fn possible_cpus() -> usize {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = list.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last.min(8191) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ex_23_golden_lists() {
        assert_eq!(default_readonly_paths(), ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
        for cpus in [1, 2, 128] {
            let paths = default_masked_paths(cpus);
            assert_eq!(paths.len(), 13 + cpus);
            assert_eq!(paths[12 + cpus], format!("/sys/devices/system/cpu/cpu{}/thermal_throttle", cpus - 1));
            assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
        }
        assert!(possible_cpus() >= std::thread::available_parallelism().unwrap().get());
    }
}
