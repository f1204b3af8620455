//! COPY, ADD and contexts of `creel build`: every flag, what is sent again, the same digest on two machines, and nothing of the host
//! read or written, whatever links lead there (BU-01, BU-04).

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::{
    build::Lab,
    image::{Layer, gzip},
};

/// What must never be in an image.
const SECRET: &str = "only-for-the-host";

impl Lab {
    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a command prints in an image.
    fn run(&self, image: &str, script: &str) -> String {
        self.ok(&["run", "--rm", image, "sh", "-c", script]).out
    }

    /// Builds, and answers what a command prints in the image.
    fn shows(&self, dockerfile: &str, script: &str) -> String {
        self.build(dockerfile, &["-t", "shown:1"]);
        self.run("shown:1", script)
    }

    /// All plain and unpacked bytes of an image.
    fn bytes_of(&self, image: &str) -> Vec<u8> {
        let tar = self.home.path().join("saved.tar");
        self.ok(&["save", "-o", tar.to_str().unwrap(), image]);
        let mut all = Vec::new();
        for entry in tar::Archive::new(fs::File::open(tar).unwrap()).entries().unwrap() {
            let mut blob = Vec::new();
            entry.unwrap().read_to_end(&mut blob).unwrap();
            match blob.starts_with(&[0x1f, 0x8b]) {
                true => all.extend(crate::buildrun::unzipped(&blob)),
                false => all.extend(blob),
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_as_the_flags_say() {
    let lab = Lab::new().await;
    for name in ["a.txt", "b.md", "tree/keep/x.txt", "tree/keep/y.md", "tree/z.txt"] {
        lab.write(name, name);
    }
    lab.write("-odd [name]", "odd");
    fs::set_permissions(lab.at("tree"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("a.txt", lab.at("link")).unwrap();
    fs::hard_link(lab.at("a.txt"), lab.at("hard")).unwrap();
    let shown = lab.shows(
        r#"FROM base:1
ENV WHO=world
WORKDIR /work
COPY a.txt b.md files/
COPY *.txt ./one/
COPY ["-odd [[]name]", "odd"]
COPY link linked
COPY tree made
COPY --chown=nobody:7 --chmod=u=rwX,go= tree owned
COPY --chown=0:5 a.txt group
COPY --exclude=*.md --exclude=tree . rest/
COPY --parents tree/keep/*.txt ./tree/./z.txt parents/
COPY <<first.conf <<-"second.conf" conf/
hello $WHO "quoted"
first.conf
	hello $WHO
second.conf
"#,
        "cd /work && ls -R files one parents rest conf; cat odd linked conf/*; stat -c '%u %g %a %n' made owned owned/z.txt group",
    );
    for part in [
        "files:\na.txt\nb.md\n",
        "one:\na.txt\n",
        "parents:\ntree\nz.txt\n\nparents/tree:\nkeep\n\nparents/tree/keep:\nx.txt\n",
        "rest:\n-odd [name]\nDockerfile\na.txt\nhard\nlink\nsrc\n",
        "conf:\nfirst.conf\nsecond.conf\n",
        "odda.txthello world \"quoted\"\nhello $WHO\n",
        "0 0 750 made\n65534 7 700 owned\n65534 7 600 owned/z.txt\n0 5 644 group\n",
    ] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    for (line, part) in [
        ("COPY --lnik a.txt /x", "unknown flag: --lnik (did you mean --link?)"),
        ("COPY tree /bin/busybox", "cannot copy to non-directory: /bin/busybox"),
        ("COPY a.txt b.md /x", "must be a directory and end with a /"),
        ("COPY *.none /x", "\"/*.none\": not found"),
        ("COPY --chown=whoever a.txt /x", "whoever"),
        ("COPY --chmod=wide a.txt /x", "invalid chmod parameter: 'wide'"),
        ("COPY https://a.example/x /x", "source can't be a URL for COPY"),
        ("ADD https://a.example/x.git /x", "git repositories are not fetched"),
    ] {
        let told = lab.fails(&format!("FROM base:1\n{line}\n"), &[]);
        assert!(told.contains(part), "{line}: {told}");
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_layer_is_the_same_on_any_base() {
    let lab = Lab::new().await;
    let file = "RUN echo one > /below\nCOPY --link --chown=nobody src/page /etc/link/page\n";
    lab.build(&format!("FROM base:1\nRUN busybox mkdir -p /real && busybox ln -s /real /etc/link\n{file}"), &["-t", "first:1"]);
    assert_eq!(lab.run("first:1", "stat -c %u /etc/link/page; test -L /etc/link || echo replaced; ls /real"), "65534\nreplaced\n");
    let other = file.replace("one", "two");
    let (_, progress) = lab.build(&format!("FROM base:1\n{other}"), &["-t", "second:1"]);
    assert_eq!(progress.matches("CACHED").count(), 1, "what is below does not count: {progress}");
    assert_eq!(lab.run("second:1", "cat /below /etc/link/page"), "two\nfirst\n");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_come_with_files_of_images_and_contexts() {
    let lab = Lab::new().await;
    // CAP_NET_RAW, permitted and effective (capabilities(7)).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lab.write("ping", "program");
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(e) = rustix::fs::setxattr(lab.at("ping"), "security.capability", &capability, flags) {
        eprintln!("SKIPPED: the file system has no extended attributes: {e}");
        return lab.finish().await;
    }
    lab.build("FROM base:1 AS one\nCOPY ping /bin/ping\nFROM scratch\nCOPY --from=one /bin/ping /bin/\n", &["-t", "one:1"]);
    let bytes = lab.bytes_of("one:1");
    let name = b"SCHILY.xattr.security.capability=";
    let at = bytes.windows(name.len()).position(|part| part == name).expect("the capability is in the layer");
    assert_eq!(bytes[at + name.len()..][..capability.len()], capability);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_unpacked_by_add_and_nothing_else() {
    let lab = Lab::new().await;
    let tar = Layer::new().dir("in").file("in/f", 0o640, b"inside").symlink("in/l", "f").link("in/h", "in/f").tar();
    fs::write(lab.at("plain.tar"), &tar).unwrap();
    fs::write(lab.at("small.tgz"), gzip(&tar)).unwrap();
    fs::write(lab.at("text.gz"), gzip(b"no archive")).unwrap();
    let script = "ls /a /b/in /c /d; cat /b/in/h; stat -c %a /a/in/f; wc -c < /e/text.gz";
    let shown = lab.shows(
        "FROM base:1\nADD plain.tar /a\nADD small.tgz /b/\nCOPY small.tgz /c/\nADD --unpack=false small.tgz /d/\nADD text.gz /e/\n",
        script,
    );
    let size = gzip(b"no archive").len();
    let wanted = format!("/a:\nin\n\n/b/in:\nf\nh\nl\n\n/c:\nsmall.tgz\n\n/d:\nsmall.tgz\ninside640\n{size}\n");
    assert_eq!(shown, wanted);
    lab.finish().await;
}

/// An HTTP server that says what it is told to say, and notes what it was asked.
struct Server {
    at: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers by path: status line and headers, and a body.
    fn start(answers: &[(&str, &str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: BTreeMap<String, (String, Vec<u8>)> =
            answers.iter().map(|(path, head, body)| ((*path).to_owned(), ((*head).to_owned(), body.to_vec()))).collect();
        let noted = asked.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &answers, &noted);
            }
        });
        Self { at, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, answers: &BTreeMap<String, (String, Vec<u8>)>, noted: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let known = request.contains("if-none-match: \"v1\"");
    noted.lock().unwrap().push(format!("{path}{}", if known { " again" } else { "" }));
    let missing = ("404 Not Found".to_owned(), Vec::new());
    let (head, body) = answers.get(&path).unwrap_or(&missing);
    let (head, body) = if known { ("304 Not Modified", &[][..]) } else { (head.as_str(), body.as_slice()) };
    let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(text.as_bytes()).ok();
    stream.write_all(body).ok();
}

/// BU-04: the name is the URL's, and nothing that a server says is a path.
#[tokio::test(flavor = "multi_thread")]
async fn bu_04_urls_are_fetched_and_checked() {
    let lab = Lab::new().await;
    let tar = gzip(&Layer::new().file("inside", 0o644, b"unpacked").tar());
    let dated = "200 OK\r\nETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Disposition: attachment; filename=\"../../../etc/evil\"";
    let server = Server::start(&[
        ("/dir/file.txt", dated, b"fetched"),
        ("/x.tgz", "200 OK", &tar),
        ("/moved", "302 Found\r\nLocation: /dir/file.txt", b""),
        ("/loop", "302 Found\r\nLocation: /loop", b""),
        ("/inward", "302 Found\r\nLocation: file:///etc/passwd", b""),
        ("/", "200 OK", b"no name"),
        ("/coded", "200 OK\r\nContent-Encoding: gzip", b"x"),
    ]);
    let at = &server.at;
    let file = format!(
        "FROM base:1\nADD {at}/dir/file.txt /got/\nADD {at}/x.tgz /packed/\nADD --unpack {at}/x.tgz /open/\nADD --chmod=644 {at}/moved /m\n"
    );
    let script = "stat -c '%a %Y %n' /got/* /m; ls /packed /etc/evil 2>&1; cat /open/inside; ls /got";
    let shown = lab.shows(&file, script);
    assert!(shown.starts_with("600 784111777 /got/file.txt\n644 784111777 /m\n"), "{shown}");
    assert!(shown.contains("x.tgz") && shown.contains("No such file") && shown.ends_with("unpackedfile.txt\n"), "{shown}");
    assert!(server.asked().contains(&"/dir/file.txt".to_owned()));
    let (_, progress) = lab.build(&file, &[]);
    assert_eq!(progress.matches("CACHED").count(), 4, "{progress}");
    assert!(server.asked().contains(&"/dir/file.txt again".to_owned()), "only asked whether it is another one");

    // With a checksum nobody is asked for what is known.
    let sum = crate::image::digest(b"fetched");
    let checked = format!("FROM base:1\nADD --checksum={sum} {at}/dir/file.txt /c\n");
    lab.build(&checked, &[]);
    assert_eq!(server.asked(), ["/dir/file.txt"]);
    lab.build(&checked, &[]);
    assert_eq!(server.asked(), Vec::<String>::new());
    let other = crate::image::digest(b"other");
    for (line, part) in [
        (format!("ADD --checksum={other} {at}/dir/file.txt /x"), "digest mismatch"),
        (format!("ADD {at}/none /x"), "status 404"),
        (format!("ADD {at}/loop /x"), "redirect: "),
        (format!("ADD {at}/inward /x"), "redirect: "),
        (format!("ADD {at}/coded /x"), "content encoding"),
        (format!("ADD {at}/ /x/"), "cannot determine filename from url"),
        (format!("ADD {at}/..%2f..%2fevil /x/"), "cannot be the name of a file"),
        ("ADD git@github.com:a/b.git#x:../.. /x".to_owned(), "git repositories are not fetched"),
        ("ADD ssh://--upload-pack=touch/x /x".to_owned(), "git repositories are not fetched"),
    ] {
        let told = lab.fails(&format!("FROM base:1\n{line}\n"), &[]);
        assert!(told.contains(part), "{line}: {told}");
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_contexts_are_images_and_directories() {
    let lab = Lab::new().await;
    let other = lab.home.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("f"), "of the other\n").unwrap();
    fs::write(other.join("left-out"), "x").unwrap();
    fs::write(other.join(".dockerignore"), "left-out\n").unwrap();
    let directory = format!("other={}", other.display());
    let file = "FROM start\nCOPY --from=other . /o/\nCOPY --from=image /bin/busybox /again\nRUN --mount=type=bind,from=other,target=/m cat /m/f > /ran\n";
    let flags = [
        "--build-context",
        &directory,
        "--build-context",
        "start=docker-image://base:1",
        "--build-context",
        "image=docker-image://base:1",
    ];
    lab.build(file, &[&flags[..], &["-t", "named:1"]].concat());
    assert_eq!(lab.run("named:1", "ls /o; cat /o/f /ran; test -x /again && echo yes"), "f\nof the other\nof the other\nyes\n");
    for (flag, part) in [("x", "use NAME=PATH"), ("x=/nowhere", "not a directory"), ("x=oci-layout://y", "No such file")] {
        let said = lab.says(&["build", "--build-context", flag, lab.context().to_str().unwrap()], None);
        assert!(said.code != 0 && said.err.contains(part), "{flag}: {said:?}");
    }
    lab.finish().await;
}

/// What the daemon says of the last context: how many files it wanted, and how many were gone.
fn received(lab: &Lab) -> (u64, u64) {
    let log = lab.daemon.log();
    let line = log.lines().rfind(|line| line.contains("context received")).unwrap_or_else(|| panic!("{log}"));
    let value = |key: &str| {
        let rest = line.split(key).nth(1).unwrap_or_else(|| panic!("{key}: {line}"));
        let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    (value("wanted"), value("gone"))
}

/// Waits until a file is old enough for its times to tell that nothing was written to it.
fn settle(path: &Path) {
    let changed = || fs::metadata(path).unwrap().modified().unwrap();
    while SystemTime::now().duration_since(changed()).is_ok_and(|age| age < Duration::from_millis(300)) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_sent_again() {
    let mut lab = Lab::new().await;
    for number in 0..200 {
        lab.write(&format!("many/{}/{number}", number % 7), &format!("file {number}"));
    }
    let file = "FROM base:1\nCOPY many /many\n";
    lab.write("Dockerfile", file);
    settle(&lab.at("Dockerfile"));
    let build = |lab: &Lab, image: &str| lab.ok(&["build", "-t", image, lab.context().to_str().unwrap()]).err;
    build(&lab, "many:1");
    let (first, _) = received(&lab);
    assert!(first > 200, "{first}");
    let progress = build(&lab, "many:1");
    assert_eq!(received(&lab), (0, 0), "{progress}");
    assert!(progress.contains("CACHED"), "{progress}");

    // One changes, one goes, one becomes a directory, one a link: these alone are sent, and the image is right.
    fs::write(lab.at("many/0/0"), "changed").unwrap();
    fs::remove_file(lab.at("many/1/1")).unwrap();
    fs::remove_file(lab.at("many/2/2")).unwrap();
    lab.write("many/2/2/deep", "new");
    fs::remove_dir_all(lab.at("many/3")).unwrap();
    symlink("0", lab.at("many/3")).unwrap();
    build(&lab, "many:2");
    let (wanted, gone) = received(&lab);
    assert!(wanted < 20 && gone == 1, "{wanted} {gone}");
    let shown = lab.run("many:2", "cd /many; cat 0/0 2/2/deep; ls 1/1; busybox readlink 3; busybox find . -type f | wc -l");
    let left = (0..200).filter(|n| n % 7 != 3).count() - 1;
    assert_eq!(shown, format!("changednew0\n{left}\n"));

    // The daemon may go away meanwhile.
    settle(&lab.at("many/0/0"));
    build(&lab, "many:2");
    lab.daemon.kill();
    lab.daemon.run().await;
    build(&lab, "many:2");
    assert_eq!(received(&lab), (0, 0));
    // Many changes become one layer again.
    for round in 0..12 {
        lab.write("many/round", &format!("{round}\n"));
        build(&lab, "many:3");
    }
    assert_eq!(lab.run("many:3", "cat /many/round; busybox find /many -type f | wc -l"), format!("11\n{}\n", left + 1));
    // What is kept is freed, and then all of it is sent.
    lab.ok(&["builder", "prune", "-af"]);
    build(&lab, "many:3");
    assert!(received(&lab).0 > 150);
    lab.finish().await;
}

/// The same context and base give the same image, whoever builds it and when.
#[tokio::test(flavor = "multi_thread")]
async fn two_machines_build_the_same() {
    let (one, other) = (Lab::new().await, Lab::new().await);
    let base = one.home.path().join("saved-base.tar");
    one.ok(&["save", "-o", base.to_str().unwrap(), "base:1"]);
    other.ok(&["rmi", "-f", "base:1"]);
    other.ok(&["load", "-i", base.to_str().unwrap()]);
    let file = "FROM base:1\nWORKDIR /w\nCOPY src .\nCOPY <<made /w/\nhello\nmade\nRUN echo ran > /ran && busybox mkdir /d && busybox ln -s x /d/l\nCMD true\n";
    // Without a word of when: the newest that goes in says it.
    for lab in [&one, &other] {
        lab.write("src/page", "same\n");
        let mut touch = Command::new("touch");
        touch.args(["-h", "-d", "2020-05-05T05:05:05Z"]).arg(lab.at("src")).arg(lab.at("src/page"));
        assert!(touch.status().unwrap().success());
    }
    let (first, _) = one.build(file, &["-t", "same:1"]);
    let (second, _) = other.build(file, &["-t", "same:1"]);
    assert_eq!(first, second, "the same files with the same times");
    // With it, times of files count no more.
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", "same:2"];
    let touched = Command::new("touch").args(["-d", "2022-02-02"]).arg(one.at("src/page")).status();
    assert!(touched.unwrap().success());
    let (third, _) = one.build(file, &epoch);
    other.write("src/page", "same\n");
    let (fourth, _) = other.build(file, &epoch);
    assert_eq!(third, fourth, "touched meanwhile");
    assert_ne!(first, third);
    let created = one.ok(&["image", "inspect", "--format", "{{.Created}}", "same:2"]).out;
    assert!(created.starts_with("2020-09-13T12:26:40"), "{created}");
    let (_, _) = one.build(file, &["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", "same:3"]);
    let id = one.ok(&["image", "inspect", "--format", "{{.Id}}", "same:3"]).out;
    assert_eq!(id.trim(), third, "built anew it is the same");
    let told = one.fails(file, &["--build-arg", "SOURCE_DATE_EPOCH=soon"]);
    assert!(told.contains("SOURCE_DATE_EPOCH=soon: not a number of seconds since 1970"), "{told}");
    one.finish().await;
    other.finish().await;
}

/// BU-01: links at every place of sources and destinations lead nowhere but inside.
#[tokio::test(flavor = "multi_thread")]
async fn bu_01_links_lead_nowhere_but_inside() {
    let lab = Lab::new().await;
    let outside = lab.home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    let (host, secret) = (outside.to_str().unwrap().to_owned(), outside.join("secret"));
    // In the context: absolute and relative, as the last component and on the way.
    symlink(&secret, lab.at("absolute")).unwrap();
    symlink("../outside/secret", lab.at("relative")).unwrap();
    symlink(&outside, lab.at("directory")).unwrap();
    symlink("/", lab.at("slash")).unwrap();
    for source in ["absolute", "relative", "directory/secret", "directory/*", "slash/../outside/secret", "directory/."] {
        let told = lab.fails(&format!("FROM base:1\nCOPY {source} /got\n"), &[]);
        assert!(told.contains("not found"), "{source}: {told}");
    }
    let told = lab.fails("FROM base:1\nCOPY --parents directory/secret /got/\n", &[]);
    assert!(told.contains("not found") || told.contains("symbolic link"), "{told}");

    // In images: every component of source and destination.
    let evil = format!(
        "FROM base:1 AS evil\nRUN busybox mkdir -p /e && cd /e && busybox ln -s {host} out && busybox ln -s / root && busybox ln -s {host}/secret file && busybox ln -s ../../../..{host} up\n"
    );
    for source in ["/e/out/secret", "/e/file", "/e/up/secret", "/e/root/../..{host}/secret"] {
        let source = source.replace("{host}", &host);
        let told = lab.fails(&format!("{evil}FROM base:1\nCOPY --from=evil {source} /got\n"), &[]);
        assert!(told.contains("not found"), "{source}: {told}");
    }
    lab.write("new", "written by a build");
    let tar =
        Layer::new().symlink("x", &host).file("x/secret", 0o644, b"overwritten").symlink("y", "/").file("y/z", 0o644, b"z").tar();
    fs::write(lab.at("links.tar"), tar).unwrap();
    let image = format!(
        "{evil}COPY new /e/out/secret\nCOPY new /e/file\nCOPY new /e/up/\nCOPY --chown=1:1 --chmod=777 new /e/root/x\nCOPY --parents src/page /e/out/\nADD links.tar /t/\nCOPY --from=base:1 /bin/busybox /e/out/b\n"
    );
    lab.build(&image, &["-t", "evil:1"]);
    let listed = |name: &str| fs::read_dir(name).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(listed(&host), ["secret"], "nothing has come to the host");
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert!(lab.run("evil:1", &format!("cat {host}/secret; ls /x")).contains("/x"));
    let bytes = lab.bytes_of("evil:1");
    assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "what is the host's is in no layer");

    // An archive that names what is above it.
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.as_old_mut().name[..8].copy_from_slice(b"../../up");
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([b"x".to_vec(), vec![0; 511 + 1024]].concat());
    fs::write(lab.at("up.tar"), bytes).unwrap();
    assert!(lab.fails("FROM base:1\nADD up.tar /t/\n", &[]).contains("leads out of the directory"));
    lab.finish().await;
}

/// BU-01: what only the builder can read is not shown to who has made the context.
#[tokio::test(flavor = "multi_thread")]
async fn bu_01_dockerfiles_and_ignore_files_stay_in_the_context() {
    let lab = Lab::new().await;
    let secret = lab.home.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let context = lab.context();
    let context = context.to_str().unwrap();
    let refused = |args: &[&str]| {
        let said = lab.says(&[&["build"][..], args].concat(), None);
        assert!(said.code != 0 && !said.err.contains(SECRET) && !said.out.contains(SECRET), "{said:?}");
        assert!(said.err.contains("leads out of the build context"), "{said:?}");
    };
    symlink(&secret, lab.at("Dockerfile")).unwrap();
    refused(&[context]);
    refused(&["-f", lab.at("Dockerfile").to_str().unwrap(), context]);
    fs::remove_file(lab.at("Dockerfile")).unwrap();
    lab.write("Dockerfile", "FROM base:1\n");
    symlink(&secret, lab.at(".dockerignore")).unwrap();
    refused(&[context]);
    fs::remove_file(lab.at(".dockerignore")).unwrap();
    // A tar is the daemon's to read: its links lead into it.
    let tar = Layer::new().symlink("Dockerfile", secret.to_str().unwrap()).tar();
    let file = lab.home.path().join("context.tar");
    fs::write(&file, tar).unwrap();
    let said = lab.says(&["build", "-"], Some(&file));
    assert!(said.code != 0 && !said.err.contains(SECRET), "{said:?}");
    // Whoever names a file outside means it, and its own .dockerignore comes first.
    let other = lab.home.path().join("Other");
    fs::write(&other, "FROM base:1\nCOPY . /c/\n").unwrap();
    fs::write(lab.home.path().join("Other.dockerignore"), "src\n").unwrap();
    lab.write(".dockerignore", "nothing\n");
    lab.ok(&["build", "-t", "other:1", "-f", other.to_str().unwrap(), context]);
    assert_eq!(lab.run("other:1", "ls /c"), "Dockerfile\n");
    lab.finish().await;
}
