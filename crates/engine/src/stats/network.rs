//! Counters of a pod's network interfaces.

/// Counters of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Name in the pod.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// /proc/PID/net/dev shows the counters of that process's network namespace (proc_pid_net(5)). Loopback is left out.
pub(super) fn interfaces_of(pid: u32) -> Vec<InterfaceUsage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().filter_map(interface).filter(|i| i.name != "lo").collect()
}

fn interface(line: &str) -> Option<InterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
    let traffic = |at: usize| {
        let [bytes, packets, errors, dropped] = *counters.get(at..at + 4)? else { return None };
        Some(Traffic { bytes, packets, errors, dropped })
    };
    // Eight numbers for what came in: bytes, packets, errors, drops, and four that nobody asks for; then as many again.
    Some(InterfaceUsage { name: name.trim().to_owned(), received: traffic(0)?, sent: traffic(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_dev_lines() {
        let line = "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let traffic = |bytes| Traffic { bytes, packets: bytes + 1, errors: bytes + 2, dropped: bytes + 3 };
        assert_eq!(interface(line), Some(InterfaceUsage { name: "eth0".into(), received: traffic(1), sent: traffic(9) }));
        assert_eq!(interface("face |bytes packets: x"), None);
        assert_eq!(interface("eth0: 1 2 3 4 5 6 7 8 9"), None);
        assert!(interfaces_of(std::process::id()).iter().all(|i| i.name != "lo"));
    }
}
