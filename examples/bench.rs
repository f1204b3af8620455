//! Measures CRI sockets against each other: latencies, many pods at once, memory, pulls. Used by `hack/bench`.
//!
//! `bench --out DIR --rounds N NAME=SOCKET...`: the first NAME is the peer that the others are compared with. Rounds are
//! interleaved, so that the noise of a shared machine meets all of them alike. Prints a Markdown table and writes
//! `bench.json` and `bench.svg` to DIR.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use api::runtime::{self as cri, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use clap::Parser;
use tonic::transport::{Channel, Endpoint};

#[derive(Parser)]
struct Args {
    /// Where the results go.
    #[arg(long)]
    out: PathBuf,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Whole cycles per round.
    #[arg(long, default_value_t = 10)]
    cycles: usize,
    /// Pods that are started at once; 0: none.
    #[arg(long, default_value_t = 100)]
    parallel: usize,
    /// Pods that stand while memory is read; 0: none.
    #[arg(long, default_value_t = 20)]
    memory: usize,
    /// Pods that are started one after the other, to compare the last ones with the first; 0: none.
    #[arg(long, default_value_t = 0)]
    growth: usize,
    /// The image of the pods.
    #[arg(long, default_value = "registry.k8s.io/e2e-test-images/busybox:1.29-2")]
    image: String,
    /// An image that is pulled and removed.
    #[arg(long)]
    pull: Option<String>,
    /// Pods on the host's network.
    #[arg(long)]
    hostnet: bool,
    /// NAME=SOCKET
    #[arg(required = true)]
    targets: Vec<String>,
}

struct Target {
    name: String,
    socket: PathBuf,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// Milliseconds by what was measured.
    samples: BTreeMap<String, Vec<f64>>,
    /// KiB by what was measured.
    memory: BTreeMap<String, f64>,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut targets = Vec::new();
    for target in &args.targets {
        let (name, socket) = target.split_once('=').ok_or("a target is NAME=SOCKET")?;
        targets.push(Target::connect(name, Path::new(socket)).await?);
    }
    for target in &mut targets {
        target.pull(&args.image).await?;
        target.cycle(&args, false).await?;
        target.memory.insert("daemon idle, RSS".into(), rss(daemon_pid(&target.socket)?)?);
    }
    for round in 0..args.rounds {
        let count = targets.len();
        for i in 0..count {
            let target = &mut targets[if round % 2 == 0 { i } else { count - 1 - i }];
            for _ in 0..args.cycles {
                target.cycle(&args, true).await?;
            }
            if let Some(image) = &args.pull {
                target.timed_pull(image).await?;
            }
            if args.parallel > 0 && round < 3 {
                target.many_at_once(&args).await?;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    for target in &mut targets {
        if args.memory > 0 {
            target.measure_memory(&args).await?;
        }
        if args.growth > 0 {
            target.measure_growth(&args).await?;
        }
    }
    fs::create_dir_all(&args.out)?;
    report(&targets, &args.out)
}

impl Target {
    async fn connect(name: &str, socket: &Path) -> Result<Self> {
        let channel = Endpoint::try_from(format!("unix:{}", socket.display()))?.connect().await?;
        Ok(Self {
            name: name.into(),
            socket: socket.into(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            images: ImageServiceClient::new(channel).max_decoding_message_size(64 << 20),
            samples: BTreeMap::new(),
            memory: BTreeMap::new(),
        })
    }

    async fn pull(&mut self, image: &str) -> Result<()> {
        let spec = cri::ImageSpec { image: image.into(), ..Default::default() };
        self.images.pull_image(cri::PullImageRequest { image: Some(spec), ..Default::default() }).await?;
        Ok(())
    }

    async fn timed_pull(&mut self, image: &str) -> Result<()> {
        let spec = cri::ImageSpec { image: image.into(), ..Default::default() };
        self.images.remove_image(cri::RemoveImageRequest { image: Some(spec) }).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        self.pull(image).await?;
        self.note("PullImage, large", begin);
        Ok(())
    }

    fn note(&mut self, what: &str, begin: Instant) {
        self.samples.entry(what.into()).or_default().push(begin.elapsed().as_secs_f64() * 1e3);
    }

    async fn up(&mut self, args: &Args, record: bool) -> Result<(String, String)> {
        let (pod_config, begin) = (pod_config(args), Instant::now());
        let request = cri::RunPodSandboxRequest { config: Some(pod_config.clone()), runtime_handler: String::new() };
        let pod = self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let ran = Instant::now();
        let config = Some(container_config(args));
        let request = cri::CreateContainerRequest { pod_sandbox_id: pod.clone(), config, sandbox_config: Some(pod_config) };
        let container = self.runtime.create_container(request).await?.into_inner().container_id;
        let created = Instant::now();
        self.runtime.start_container(cri::StartContainerRequest { container_id: container.clone() }).await?;
        if record {
            let started = Instant::now();
            for (what, took) in [
                ("RunPodSandbox", ran - begin),
                ("CreateContainer", created - ran),
                ("StartContainer", started - created),
                ("pod and container up", started - begin),
            ] {
                self.samples.entry(what.into()).or_default().push(took.as_secs_f64() * 1e3);
            }
        }
        Ok((pod, container))
    }

    async fn down(&mut self, pod: String, container: String, record: bool) -> Result<()> {
        let begin = Instant::now();
        self.runtime.stop_container(cri::StopContainerRequest { container_id: container.clone(), timeout: 0 }).await?;
        let stopped = Instant::now();
        self.runtime.remove_container(cri::RemoveContainerRequest { container_id: container }).await?;
        let removed = Instant::now();
        self.runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
        let pod_stopped = Instant::now();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
        if record {
            let end = Instant::now();
            for (what, took) in [
                ("StopContainer", stopped - begin),
                ("RemoveContainer", removed - stopped),
                ("StopPodSandbox", pod_stopped - removed),
                ("RemovePodSandbox", end - pod_stopped),
                ("stop and remove all", end - begin),
            ] {
                self.samples.entry(what.into()).or_default().push(took.as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }

    async fn cycle(&mut self, args: &Args, record: bool) -> Result<()> {
        let (pod, container) = self.up(args, record).await?;
        let begin = Instant::now();
        let request = cri::ExecSyncRequest { container_id: container.clone(), cmd: vec!["true".into()], timeout: 30 };
        self.runtime.exec_sync(request).await?;
        if record {
            self.note("ExecSync true", begin);
        }
        self.down(pod, container, record).await
    }

    async fn many_at_once(&mut self, args: &Args) -> Result<()> {
        let begin = Instant::now();
        let mut jobs = Vec::new();
        for _ in 0..args.parallel {
            let mut one = self.sibling();
            let (args_image, hostnet) = (args.image.clone(), args.hostnet);
            jobs.push(async move {
                let args = small_args(&args_image, hostnet);
                one.up(&args, false).await.map_err(|e| e.to_string())
            });
        }
        let made = futures_util::future::join_all(jobs).await;
        self.note(&format!("{} pods at once, up", args.parallel), begin);
        let begin = Instant::now();
        let mut jobs = Vec::new();
        for pod in made {
            let (pod, container) = pod?;
            let mut one = self.sibling();
            jobs.push(async move { one.down(pod, container, false).await.map_err(|e| e.to_string()) });
        }
        for result in futures_util::future::join_all(jobs).await {
            result?;
        }
        self.note(&format!("{} pods at once, down", args.parallel), begin);
        Ok(())
    }

    fn sibling(&self) -> Self {
        Self {
            name: self.name.clone(),
            socket: self.socket.clone(),
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            samples: BTreeMap::new(),
            memory: BTreeMap::new(),
        }
    }

    /// PSS of everything that came with the pods, but for the workload itself.
    async fn measure_memory(&mut self, args: &Args) -> Result<()> {
        let before: BTreeSet<u32> = pids().collect();
        let daemon = daemon_pid(&self.socket)?;
        let daemon_before = pss(daemon)?;
        let mut pods = Vec::new();
        for _ in 0..args.memory {
            pods.push(self.up(args, false).await?);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let overhead: f64 = pids()
            .filter(|pid| !before.contains(pid) && comm(*pid) != "sleep" && comm(*pid) != "kworker")
            .filter_map(|pid| pss(pid).ok())
            .sum();
        let grown = (pss(daemon)? - daemon_before).max(0.0);
        self.memory.insert("per pod beside the workload, PSS".into(), (overhead + grown) / args.memory as f64);
        self.memory.insert(format!("daemon with {} pods, RSS", args.memory), rss(daemon)?);
        for (pod, container) in pods {
            self.down(pod, container, false).await?;
        }
        Ok(())
    }

    /// The last tenth against the first tenth.
    async fn measure_growth(&mut self, args: &Args) -> Result<()> {
        let (mut pods, mut took) = (Vec::new(), Vec::new());
        for _ in 0..args.growth {
            let begin = Instant::now();
            pods.push(self.up(args, false).await?);
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let tenth = (args.growth / 10).max(1);
        self.samples.insert(format!("up, the first {tenth}"), took[..tenth].to_vec());
        self.samples.insert(format!("up, the last {tenth} of {}", args.growth), took[took.len() - tenth..].to_vec());
        for (pod, container) in pods {
            self.down(pod, container, false).await?;
        }
        Ok(())
    }
}

fn small_args(image: &str, hostnet: bool) -> Args {
    Args {
        out: PathBuf::new(),
        rounds: 0,
        cycles: 0,
        parallel: 0,
        memory: 0,
        growth: 0,
        image: image.into(),
        pull: None,
        hostnet,
        targets: Vec::new(),
    }
}

fn pod_config(args: &Args) -> cri::PodSandboxConfig {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let uid = format!("bench-{}-{number}", std::process::id());
    let network = if args.hostnet { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let namespaces =
        cri::NamespaceOption { network: network.into(), pid: cri::NamespaceMode::Container.into(), ..Default::default() };
    let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata { name: uid.clone(), uid, namespace: "bench".into(), attempt: 0 }),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: "/creel-bench".into(),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_config(args: &Args) -> cri::ContainerConfig {
    let network = if args.hostnet { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let namespaces =
        cri::NamespaceOption { network: network.into(), pid: cri::NamespaceMode::Container.into(), ..Default::default() };
    let seccomp = cri::SecurityProfile { profile_type: 0, localhost_ref: String::new() };
    let security =
        cri::LinuxContainerSecurityContext { namespace_options: Some(namespaces), seccomp: Some(seccomp), ..Default::default() };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: args.image.clone(), user_specified_image: args.image.clone(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        linux: Some(cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn kib(path: &str, key: &str) -> Result<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim_start_matches(':').split_whitespace().next().ok_or("empty")?.parse()?)
}

fn pss(pid: u32) -> Result<f64> {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn rss(pid: u32) -> Result<f64> {
    kib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Who listens on the socket.
fn daemon_pid(socket: &Path) -> Result<u32> {
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    Ok(u32::try_from(rustix::net::sockopt::socket_peercred(&stream)?.pid.as_raw_nonzero().get())?)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

fn report(targets: &[Target], out: &Path) -> Result<()> {
    let (peer, others) = targets.split_first().ok_or("no target")?;
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let names: Vec<_> = targets.iter().map(|t| t.name.as_str()).collect();
    let ratios: Vec<_> = others.iter().map(|t| format!("{} / {}", t.name, peer.name)).collect();
    println!("| ms, median (least) | {} | {} |", names.join(" | "), ratios.join(" | "));
    println!("|---{}|", "|---".repeat(names.len() + ratios.len()));
    for what in peer.samples.keys() {
        let cells: Vec<_> =
            targets.iter().filter_map(|t| t.samples.get(what)).map(|s| format!("{:.2} ({:.2})", median(s), least(s))).collect();
        let values: Vec<f64> = targets.iter().filter_map(|t| t.samples.get(what)).map(|s| median(s)).collect();
        let ratio: Vec<_> = values.iter().skip(1).map(|v| format!("{:.3}", v / values[0])).collect();
        println!("| {what} | {} | {} |", cells.join(" | "), ratio.join(" | "));
        rows.push((what.clone(), values));
    }
    println!("\n| KiB | {} | {} |", names.join(" | "), ratios.join(" | "));
    println!("|---{}|", "|---".repeat(names.len() + ratios.len()));
    for what in peer.memory.keys() {
        let values: Vec<f64> = targets.iter().filter_map(|t| t.memory.get(what)).copied().collect();
        let cells: Vec<_> = values.iter().map(|v| format!("{v:.0}")).collect();
        let ratio: Vec<_> = values.iter().skip(1).map(|v| format!("{:.3}", v / values[0])).collect();
        println!("| {what} | {} | {} |", cells.join(" | "), ratio.join(" | "));
        rows.push((what.clone(), values));
    }
    let json: BTreeMap<_, _> =
        targets.iter().map(|t| (t.name.clone(), serde_json::json!({"ms": t.samples, "kib": t.memory}))).collect();
    fs::write(out.join("bench.json"), serde_json::to_vec_pretty(&json)?)?;
    fs::write(out.join("bench.svg"), svg(&names, &rows))?;
    Ok(())
}

/// A bar per row and target: how long it takes in per cent of the peer, on a logarithmic scale.
fn svg(names: &[&str], rows: &[(String, Vec<f64>)]) -> String {
    use std::fmt::Write;
    const COLOURS: [&str; 4] = ["#b0b7c3", "#2f6fde", "#3aa675", "#c9822b"];
    let (left, width, bar) = (250.0, 480.0, 11.0);
    let height = 60.0 + rows.len() as f64 * (bar * names.len() as f64 + 9.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    let _ = writeln!(text, "<rect width=\"820\" height=\"{height}\" fill=\"#ffffff\"/>");
    // 0.5 % at the left edge, 200 % at the right one.
    let x = |ratio: f64| left + width * ((ratio.clamp(0.005, 2.0) / 0.005).log10() / 400f64.log10());
    for (percent, label) in [(0.01, "1 %"), (0.1, "10 %"), (1.0, "100 %")] {
        let _ =
            writeln!(text, "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"36\" y2=\"{1}\" stroke=\"#d8dbe0\"/>", x(percent), height - 6.0);
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"30\" text-anchor=\"middle\" fill=\"#555\">{label}</text>", x(percent));
    }
    for (i, name) in names.iter().enumerate() {
        let at = 12.0 + 130.0 * i as f64;
        let _ = writeln!(
            text,
            "<rect x=\"{at}\" y=\"6\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"15\">{name}</text>",
            COLOURS[i % 4],
            at + 15.0
        );
    }
    let mut y = 44.0;
    for (what, values) in rows {
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{what}</text>",
            left - 8.0,
            y + bar * names.len() as f64 / 2.0 + 4.0
        );
        for (i, value) in values.iter().enumerate() {
            let ratio = value / values[0];
            let _ = writeln!(
                text,
                "<rect x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{bar}\" fill=\"{}\"/>",
                x(ratio) - left,
                COLOURS[i % 4]
            );
            if i > 0 {
                let _ = writeln!(
                    text,
                    "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{:.1} %</text>",
                    x(ratio) + 4.0,
                    y + bar - 2.0,
                    ratio * 100.0
                );
            }
            y += bar;
        }
        y += 9.0;
    }
    text.push_str("</svg>\n");
    text
}
