//! `creel build`: stages run side by side, the same step is made once, the first failure and a client that goes end everything; how
//! it is shown, and what is said of Dockerfiles that are wrong or may be meant otherwise.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{build::Lab, daemon::bin};

/// How long anything may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A RUN that shares a directory with all others of this name.
fn meet(name: &str, script: &str) -> String {
    format!("RUN --mount=type=cache,id={name},target=/m {script}")
}

/// A shell's words that wait for a file, and fail if it does not come.
fn until(file: &str) -> String {
    format!("n=0; until [ -e {file} ]; do n=$((n+1)); [ $n -lt 1000 ] || exit 99; sleep 0.1; done")
}

/// A build that goes on while the test does something else.
struct Going {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
}

impl Going {
    fn begin(lab: &Lab, args: &[&str]) -> Self {
        let mut command = Command::new(bin("creel"));
        command.arg("build").args(args).arg(lab.context()).env("CREEL_SOCKET", lab.daemon.socket()).env("HOME", lab.home.path());
        command.env_remove("BUILDKIT_PROGRESS").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, seen: String::new() }
    }

    /// Waits until a step prints this: its own headline has other words behind.
    fn prints(&mut self, text: &str) {
        self.says(&format!(" {text}\n"));
    }

    /// Waits until this is said.
    fn says(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains(part) {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|e| panic!("{part:?} was not said: {e}\n{}", self.seen));
            self.seen.push_str(&(line + "\n"));
        }
    }

    /// Everything it has said, and how it has ended.
    fn ends(mut self) -> (String, ExitStatus) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push_str(&(line + "\n"));
        }
        (std::mem::take(&mut self.seen), self.child.wait().unwrap())
    }

    fn killed(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_run_side_by_side() {
    let lab = Lab::new().await;
    let file = format!(
        "FROM base:1 AS a\n{}\nFROM base:1 AS b\n{}\nFROM base:1\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("both", &format!("touch /m/a; {}; echo a > /a", until("/m/b"))),
        meet("both", &format!("touch /m/b; {}; echo b > /b", until("/m/a"))),
    );
    // Each waits for the other: one after the other they would never end.
    let (_, progress) = lab.build(&file, &["-t", "both:1"]);
    assert_eq!(lab.ok(&["run", "--rm", "both:1", "cat", "/a", "/b"]).out, "a\nb\n", "{progress}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_step_is_made_once() {
    let lab = Lab::new().await;
    let script = format!("echo once >> /m/count; echo under way; {}; cat /m/count > /count", until("/m/go"));
    let file = format!("FROM base:1\n{}\n", meet("one", &script));
    fs::write(lab.at("Dockerfile"), &file).unwrap();
    let mut first = Going::begin(&lab, &["-t", "first:1"]);
    first.prints("under way");
    let mut second = Going::begin(&lab, &["-t", "second:1"]);
    second.says("[2/2] RUN");
    // Whoever is first goes away: who waits does it.
    first.killed();
    second.prints("under way");
    let mut third = Going::begin(&lab, &["-t", "third:1"]);
    third.says("[2/2] RUN");
    fs::write(lab.at("Go"), format!("FROM base:1\n{}\n", meet("one", "touch /m/go"))).unwrap();
    lab.ok(&["build", "-f", lab.at("Go").to_str().unwrap(), lab.context().to_str().unwrap()]);
    for (build, what) in [(second, "DONE"), (third, "CACHED")] {
        let (seen, status) = build.ends();
        assert!(status.success(), "{seen}");
        let end = seen.lines().rfind(|line| line.starts_with("#4 ")).unwrap_or_default();
        assert!(end.contains(what), "{what}: {seen}");
    }
    // Once by the one that went away, once by the one that stayed.
    assert_eq!(lab.ok(&["run", "--rm", "third:1", "cat", "/count"]).out, "once\nonce\n");
    let id = |name: &str| lab.ok(&["inspect", "-f", "{{.Id}}", name]).out;
    assert_eq!(id("second:1"), id("third:1"));
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failure_ends_the_rest() {
    let lab = Lab::new().await;
    lab.build("FROM base:1\nLABEL as=it-was\n", &["-t", "kept:1"]);
    let before = lab.ok(&["inspect", "-f", "{{.Id}}", "kept:1"]).out;
    let file = format!(
        "FROM base:1 AS a\n{}\nFROM base:1 AS b\n{}\nFROM base:1\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("end", "touch /m/a; sleep 100000"),
        meet("end", &format!("{}; echo the last word; exit 7", until("/m/a"))),
    );
    let said = lab.fails(&file, &["-t", "kept:1"]);
    assert!(said.contains("CANCELED") && said.contains("exit code: 7"), "{said}");
    // The step's own words stand with the error.
    let (_, end) = said.split_once("------\n > [b 2/2] RUN").unwrap_or_else(|| panic!("{said}"));
    assert!(end.contains(" the last word\n------\nDockerfile:4\n"), "{said}");
    assert!(
        end.contains(">>> RUN --mount=type=cache,id=end") && end.contains("\nERROR: failed to build: failed to solve: "),
        "{said}"
    );
    assert_eq!(lab.ok(&["inspect", "-f", "{{.Id}}", "kept:1"]).out, before, "the earlier image keeps its name");

    // A client that goes away ends its steps: nothing is left of them, as `finish` sees.
    fs::write(lab.at("Dockerfile"), "FROM base:1\nRUN echo under way; sleep 100000\n").unwrap();
    let mut going = Going::begin(&lab, &[]);
    going.prints("under way");
    going.killed();
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_as_one_wants_it() {
    let lab = Lab::new().await;
    let file = "FROM base:1\nRUN printf 'one\\n\\033[2Jtwo'\nWORKDIR /x\n";
    let said = |args: &[&str]| {
        fs::write(lab.at("Dockerfile"), file).unwrap();
        let context = lab.context();
        lab.ok(&[&["build", context.to_str().unwrap()], args].concat())
    };
    let plain = said(&["-t", "shown", "-t", "r.example/shown:2"]);
    let timeless: Vec<String> = plain.err.lines().map(without_times).collect();
    let wanted = "#1 [internal] load build definition from Dockerfile|#1 T transferring dockerfile: 52B done|#1 DONE T||\
                  #2 [internal] load build context|#2 T transferring context: SIZE done|#2 DONE T||\
                  #3 [1/3] FROM base:1|#3 DONE T||#4 [2/3] RUN printf 'one\\n\\033[2Jtwo'|#4 T one|#4 T \u{1b}[2Jtwo|#4 DONE T||\
                  #5 [3/3] WORKDIR /x|#5 DONE T|";
    let shown = timeless.join("|");
    let size = shown.split("context: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    assert!(size.ends_with("kB") && shown.starts_with(&wanted.replace("SIZE", size)), "{}", plain.err);
    let words: Vec<&str> = plain.out.split_whitespace().collect();
    let ["Successfully", "built", short, "Successfully", "tagged", "shown:latest", "Successfully", "tagged", "r.example/shown:2"] =
        words[..]
    else {
        panic!("{}", plain.out)
    };

    let quiet = said(&["-q"]);
    assert!(quiet.out.starts_with(&format!("sha256:{short}")) && quiet.out.len() == 72 && quiet.err.is_empty(), "{quiet:?}");
    assert_eq!(said(&["--progress", "quiet"]).err, "");
    assert!(said(&[]).err.contains("#4 CACHED\n"));

    let raw = said(&["--progress=rawjson"]);
    let objects =
        raw.err.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    let names: Vec<String> = objects.filter_map(|object| object["vertexes"][0]["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(count(&names.join("\n"), "[3/3] WORKDIR /x"), 2, "begun and completed: {names:?}");

    let context = lab.context();
    let refused = lab.says(&["build", "--progress", "tty", context.to_str().unwrap()], None);
    assert!(refused.code == 1 && refused.err.contains("no terminal"), "{refused:?}");
    // On a terminal steps stand as they end, and what they say does nothing to it.
    fs::write(lab.at("Dockerfile"), "FROM base:1\nRUN printf 'one\\n\\033[2Jtwo\\n'; exit 3\n").unwrap();
    let (shown, status) = on_a_terminal(&lab, &["build", context.to_str().unwrap()]);
    assert!(!status.success() && shown.contains(" => ERROR [2/2] RUN printf"), "{shown:?}");
    assert!(shown.contains("[+] Building") && shown.contains("FINISHED") && !shown.contains("\u{1b}[2Jtwo"), "{shown:?}");
    lab.finish().await;
}

/// `#1 0.123 x` and `#1 DONE 0.1s` with other times.
fn without_times(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    match words.as_mut_slice() {
        [_, "DONE", time] => *time = "T",
        [_, time, ..] if time.parse::<f64>().is_ok() => *time = "T",
        _ => {}
    }
    words.join(" ")
}

/// What a command writes to a terminal.
fn on_a_terminal(lab: &Lab, args: &[&str]) -> (String, ExitStatus) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = fs::File::options().read(true).write(true).open(ptsname(&master, Vec::new()).unwrap().to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let mut command = Command::new(bin("creel"));
    command.args(args).env("CREEL_SOCKET", lab.daemon.socket()).env("HOME", lab.home.path()).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    // The command's ends of the terminal are its own: when it has closed them there is no more to read.
    drop(command);
    let mut shown = Vec::new();
    fs::File::from(master).read_to_end(&mut shown).ok();
    (String::from_utf8_lossy(&shown).into_owned(), child.wait().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_where_it_is() {
    let lab = Lab::new().await;
    for (file, args, parts) in [
        (
            "FROM base:1\nRNU true\n",
            &[][..],
            &["Dockerfile:2\n", ">>> RNU true", "unknown instruction: RNU (did you mean RUN?)"][..],
        ),
        ("FROM base:1\nCOPY --form=a b c\n", &[], &["Dockerfile:2\n", "unknown flag: --form (did you mean --from?)"]),
        ("FROM base:1 AS build\n", &["--target", "biuld"], &["target stage \"biuld\" could not be found (did you mean build?)"]),
        ("FROM base:1 AS build\nFROM biuld\n", &[], &["Dockerfile:2\n", "(did you mean build?)"]),
        ("FROM base:1 AS build\nFROM base:1\nCOPY --from=biuld /a /\n", &[], &["Dockerfile:3\n", "(did you mean build?)"]),
        ("FROM base:1\nCOPY nothing /\n", &[], &["Dockerfile:2\n", "\"/nothing\": not found"]),
        ("FROM base:1\nCOPY --from=0 a b\n", &[], &["Dockerfile:2\n", "only an earlier stage"]),
        ("FROM base:1\nRUN <<EOF\necho\n", &[], &["Dockerfile:2\n", "unterminated heredoc"]),
        ("RUN x\n", &[], &["Dockerfile:1\n", "no build stage in current context"]),
    ] {
        let said = lab.fails(file, args);
        assert!(parts.iter().all(|part| said.contains(part)), "{file}: {parts:?}: {said}");
    }
    let many = format!("FROM base:1\n{}", "ENV a=b\n".repeat(1_000_000));
    assert!(lab.fails(&many, &[]).contains("more than 10000 instructions"));
    lab.finish().await;
}

/// BU-03: requests that no client of ours would send.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    use api::creel::{BuildRequest, BuildStart, CheckRequest, builds_client::BuildsClient};
    let lab = Lab::new().await;
    let mut client = BuildsClient::new(lab.daemon.channel().await.unwrap());
    let start = |change: &dyn Fn(&mut BuildStart)| {
        let mut start = BuildStart { dockerfile: b"FROM scratch\nLABEL a=b\n".to_vec(), ..BuildStart::default() };
        change(&mut start);
        BuildRequest { start: Some(start), ..BuildRequest::default() }
    };
    let tag = |name: &'static str| move |start: &mut BuildStart| start.tags.push(name.to_owned());
    for (what, requests) in [
        ("nothing at all", vec![]),
        ("no start", vec![BuildRequest::default()]),
        ("a name that is a path", vec![start(&tag("../../etc"))]),
        ("a name in capitals", vec![start(&tag("NAME"))]),
        ("too many names", vec![start(&|start| start.tags = vec!["a".to_owned(); 100_000])]),
        ("a network", vec![start(&|start| start.network = "other".to_owned())]),
        ("a platform", vec![start(&|start| start.platform = "../..".to_owned())]),
    ] {
        let answer = client.build(tokio_stream::iter(requests)).await;
        let status = match answer {
            Err(status) => status,
            Ok(events) => {
                let mut events = events.into_inner();
                loop {
                    match events.message().await {
                        Err(status) => break status,
                        Ok(Some(event)) => {
                            assert!(!matches!(event.event, Some(api::creel::build_event::Event::Built(_))), "{what}")
                        }
                        Ok(None) => break tonic::Status::invalid_argument("told as an event"),
                    }
                }
            }
        };
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}: {status}");
    }
    for dockerfile in [&b""[..], b"\xff\xfe", b"FROM a AS a\nFROM b AS b\nCOPY --from=c x y\nFROM c AS c\n", b"FROM ${A:?no}\n"] {
        let request = CheckRequest { dockerfile: dockerfile.to_vec(), target: "../..".into(), ..CheckRequest::default() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert!(answer.failed.is_some_and(|failed| !failed.message.is_empty()), "{dockerfile:?}");
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_meant_otherwise() {
    let lab = Lab::new().await;
    let file = "FROM base:1 as b\nENV A=$NOTHING$PATH\nCOPY secret /\nCMD x\n";
    fs::write(lab.at(".dockerignore"), "secret\n").unwrap();
    fs::write(lab.at("Dockerfile"), file).unwrap();
    let context = lab.context();
    let check = |args: &[&str]| lab.says(&[&["build", "--check", context.to_str().unwrap()], args].concat(), None);
    let said = check(&[]);
    assert_eq!(said.code, 1);
    assert!(
        said.out.starts_with("Check complete, 4 warnings have been found!\n\nWARNING: FromAsCasing - https://docs.docker.com/"),
        "{said:?}"
    );
    for part in [
        "'as' and 'FROM' keywords' casing do not match\nDockerfile:1\n--------------------\n   1 | >>> FROM base:1 as b\n",
        "Usage of undefined variable '$NOTHING'\n",
        "Attempting to Copy file \"secret\" that is excluded by .dockerignore\n",
        "JSON arguments recommended for CMD",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(lab.ok(&["images", "-q"]).out.lines().count() == 1, "nothing was built");

    fs::write(lab.at("Dockerfile"), "FROM base:1\nRUN false\n").unwrap();
    let said = check(&[]);
    assert_eq!((said.code, said.out.as_str()), (0, "Check complete, no warnings found.\n"));
    fs::write(lab.at("Dockerfile"), "FROM base:1\nMAINTAINER x\nRNU\n").unwrap();
    let said = check(&[]);
    assert!(said.code == 1 && said.err.contains("unknown instruction: RNU"), "{said:?}");

    // Builds say it too, but go on, unless the Dockerfile says otherwise.
    let (_, said) = lab.build("FROM base:1\nENV A $B\n", &["--build-arg", "UNUSED=1"]);
    assert!(
        said.contains(
            "\n 3 warnings found (use --check to expand):\n - LegacyKeyValueFormat: \"ENV key=value\" should be used instead of \
             legacy \"ENV key value\" format (line 2)\n - UndefinedVar: Usage of undefined variable '$B' (line 2)\n - one or more \
             build args were not consumed: [UNUSED]\n"
        ),
        "{said}"
    );
    let said = lab.fails("# check=error=true\nFROM base:1\nRUN echo not done\nCMD x\n", &[]);
    assert!(said.contains("lint violation found for rules: JSONArgsRecommended") && !said.contains("not done"), "{said}");
    let (_, said) = lab.build("# check=skip=all;error=true\nFROM base:1\nCMD x\n", &[]);
    assert!(!said.contains("warning"), "{said}");
    lab.finish().await;
}
