//! What a supervisor costs. Run it with `CREEL_SHIM` set to the static build and `--nocapture` for the numbers that count.
#![forbid(unsafe_code)]

mod pod;

use std::fs;

use pod::Pod;

#[test]
#[allow(clippy::print_stderr, reason = "measuring is for reading")]
fn memory_with_one_idle_container() {
    let mut pod = Pod::new();
    let plan = pod.plan("echo hello; sleep 1000");
    pod.start(&plan);
    pod::eventually("first line", || pod.log().exists() && pod.lines().len() == 1);
    let pid = pod.shim.pid.as_raw_nonzero();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let all = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let heap = all.split_once("[heap]").map_or("", |(_, after)| after);
    let (rss, private, file) = (kilobytes(&rollup, "Rss"), kilobytes(&rollup, "Anonymous"), kilobytes(&rollup, "Pss_File"));
    let heap = kilobytes(heap, "Anonymous");
    let charged = pod.shim_group().stats().unwrap().memory_usage.unwrap_or(0) / 1024;
    let descriptors = pod.descriptors();
    eprintln!(
        "supervisor: rss {rss} kB (program {file}), private {private} kB (heap {heap}), cgroup {charged} kB, {descriptors} descriptors"
    );
    assert!(heap < 256, "a leak or a big buffer: {heap} kB of heap");
}

fn kilobytes(smaps: &str, name: &str) -> u64 {
    let value = smaps.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}
