"""For hack/bench-*: creel and a peer (Debian's) take turns on one loop ext4 with a journal (see hack/bench), so that whatever else
the machine does hits both; rows of medians of wall times, and their ratios. CREEL_BIN: programs of hack/build (release)."""
import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)


def sh(*command, **options):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options).stdout.strip()


def bash(text):
    return sh("bash", "-ec", f". {HERE}/env.sh; {text}")


class Engine:
    """A command line and what it needs around it."""

    def __init__(self, name, command, environment):
        self.name, self.command, self.environment = name, command, {**os.environ, **environment}

    def __call__(self, *arguments):
        """Answers what it printed, and the seconds that it took."""
        begin = time.perf_counter()
        done = subprocess.run([*self.command, *arguments], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True)
        took = time.perf_counter() - begin
        if done.returncode:
            sys.exit(f"{self.name} {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout.decode().strip(), took


def tar_of(files):
    """An archive of (name, bytes), programs all; a str instead of bytes is the target of a link, None a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write(path, data):
    with open(path, "wb" if isinstance(data, bytes) else "w") as out:
        out.write(data)


class Peers:
    """What a run has: a directory, a daemon, the engines, and the rows so far."""

    def __init__(self, options, work):
        self.options, self.work, self.rows, self.engines, self.processes = options, work, {}, [], []
        self.binaries = os.environ.get("CREEL_BIN") or os.path.join(bash("echo $TARGET"), "creel-bin")

    def start_creel(self, *flags):
        shutil.copy(os.path.join(bash("echo $CREEL_CACHE"), "img/busybox"), self.work)
        socket, log = f"{self.work}/creel.sock", open(f"{self.work}/creel.log", "w")
        daemon = [f"{self.binaries}/creeld", "--root", f"{self.work}/creel/root", "--run", f"{self.work}/creel/run", "--socket", socket,
                  "--cgroup-parent", f"/{os.path.basename(self.work)}", *flags]
        self.processes.append(subprocess.Popen(daemon, stdout=log, stderr=log))
        while not os.path.exists(socket):
            time.sleep(0.05)
            if self.processes[0].poll() is not None:
                sys.exit(open(log.name).read())
        return Engine("creel", [f"{self.binaries}/creel"], {"CREEL_SOCKET": socket})

    def head(self, unit="milliseconds"):
        print(f"{unit:<34} " + " ".join(f"{engine.name:>10}" for engine in self.engines) + f" {'ratio':>8}")

    def row(self, name, rounds, command, before=lambda engine, n: None):
        """`command(engine, n)` answers seconds; the engines take turns. Above 1.0 creel is the faster one."""
        times = {engine.name: [] for engine in self.engines}
        for n in range(rounds):
            for engine in self.engines if n % 2 == 0 else reversed(self.engines):
                before(engine, n)
                times[engine.name].append(command(engine, n))
        self.add(name, times)

    def add(self, name, times):
        self.rows[name] = times
        creel, peer = (statistics.median(times[engine.name]) for engine in self.engines)
        print(f"{name:<34} {creel * 1000:>10.1f} {peer * 1000:>10.1f} {peer / creel:>8.1f}", flush=True)

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait()


def inside(kind, name, options):
    work = f"/var/tmp/creel-bench-{name}-{os.getpid()}"
    os.makedirs(work)
    sh("truncate", "-s", "20G", f"{work}.img")
    bench = None
    try:
        sh("mkfs.ext4", "-q", f"{work}.img")
        sh("mount", "-o", "loop", f"{work}.img", work)
        bench = kind(options, work)
        bench.start()
        bench.run()
        out = os.path.join(bash("echo $TARGET"), "bench")
        os.makedirs(out, exist_ok=True)
        write(f"{out}/{name}.json", json.dumps(bench.rows, indent=1))
    finally:
        if bench:
            bench.stop()
        subprocess.run(["umount", "-R", "-l", work], check=False, capture_output=True)
        shutil.rmtree(work, ignore_errors=True)
        os.unlink(f"{work}.img")
        groups = f"for d in /sys/fs/cgroup/{{,*/}}{{{os.path.basename(work)},libpod_parent}}; do [ ! -d $d ] || find $d -depth -type d -exec rmdir {{}} \\; ; done"
        subprocess.run(["bash", "-c", groups], check=False, capture_output=True)


def main(kind, name, parser):
    """Runs it in namespaces of its own, with everything there that it needs."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return inside(kind, name, options)
    sh(f"{HERE}/deps", "packages")
    if not os.environ.get("CREEL_BIN"):
        directory = os.path.join(bash("echo $TARGET"), "creel-bin")
        if not os.path.exists(f"{directory}/creeld"):
            subprocess.run([f"{HERE}/build", directory], check=True)
    os.execv(f"{HERE}/ns", [f"{HERE}/ns", os.path.abspath(sys.argv[0]), "--inside", *sys.argv[1:]])
