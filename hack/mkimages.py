#!/usr/bin/env python3
"""mkimages.py --debs DIR: build every image that critest pulls, offline, and push them to the tests' registry.

From Debian packages (nginx and its libraries, in DIR), the busybox of build-busybox.sh and the two C programs below.
Layers, configs and manifests are written here and pushed with the registry's HTTP API. All of it is deterministic
(mtime 0): the same inputs give the same digests. The names are the upstream ones less the host. Most are docker
schema 2 manifest lists (amd64, and an arm64 entry that is never run); library/* and test/* are OCI.
--list prints what the registry has. What was pushed goes to $CREEL_CACHE/img/pushed.json.
"""
import argparse
import glob
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request

CACHE = os.environ["CREEL_CACHE"]

PAUSE_C = r"""
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>
static void down(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
  struct sigaction d = {.sa_handler = down}, r = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  if (sigaction(SIGINT, &d, NULL) || sigaction(SIGTERM, &d, NULL) || sigaction(SIGCHLD, &r, NULL)) return 1;
  for (;;) pause();
}
"""
NONEWPRIVS_C = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); return 0; }
"""
PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
utmp:x:43:
www-data:x:33:
users:x:100:
nogroup:x:65534:
nobody:x:65534:
"""
HTTPD = """#!/bin/sh
echo "AH00094: Command line: 'httpd -D FOREGROUND' (busybox httpd)"
exec httpd -f -vv -p 80 -h /www
"""
NGINX_CONF = """user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  include /etc/nginx/conf.d/*.conf;
}
"""
NGINX_SERVER = "server { listen %d; server_name localhost; location / { root /usr/share/nginx/html; index index.html; } }\n"


class Format:
    """The media types of an image format."""

    def __init__(self, index, manifest, config, layer):
        self.index, self.manifest, self.config, self.layer = index, manifest, config, layer


DOCKER = Format(
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    {"gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip"},
)
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI = Format(
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    {"": OCI_LAYER, "gzip": OCI_LAYER + "+gzip", "zstd": OCI_LAYER + "+zstd"},
)


def output(*command, **kw):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **kw).stdout


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, separators=(",", ":")).encode()


class Layer:
    """A deterministic tar; parents are made as they are needed."""

    def __init__(self):
        self.buffer, self.dirs = io.BytesIO(), set()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind, mode, uid=0, gid=0, data=None, target=""):
        self.parents(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname, info.size = kind, mode, uid, gid, target, len(data or b"")
        self.tar.addfile(info, io.BytesIO(data) if data is not None else None)
        return self

    def parents(self, name):
        parts = name.strip("/").split("/")[:-1]
        for i in range(1, len(parts) + 1):
            self.dir("/".join(parts[:i]))

    def dir(self, name, mode=0o755, uid=0, gid=0):
        if name not in self.dirs:
            self.dirs.add(name)
            self.add(name + "/", tarfile.DIRTYPE, mode, uid, gid)
        return self

    def file(self, name, data, mode=0o644):
        return self.add(name, tarfile.REGTYPE, mode, data=data.encode() if isinstance(data, str) else data)

    def link(self, name, target):
        return self.add(name, tarfile.LNKTYPE, 0o755, target=target)

    def symlink(self, name, target):
        return self.add(name, tarfile.SYMTYPE, 0o777, target=target)

    def deb(self, path, wanted):
        """The files and symbolic links of a .deb whose names are wanted."""
        with tarfile.open(fileobj=io.BytesIO(output("dpkg-deb", "--fsys-tarfile", path))) as package:
            for member in package:
                name = member.name.removeprefix("./")
                if member.isfile() and wanted(name):
                    self.file(name, package.extractfile(member).read(), member.mode)
                elif member.issym() and wanted(name):
                    self.symlink(name, member.linkname)
        return self

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


class Registry:
    def __init__(self, url):
        self.url, self.opener = url, urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def http(self, method, path, body=None, kind=None):
        request = urllib.request.Request(path if "://" in path else f"{self.url}/v2/{path}", data=body, method=method)
        if kind:
            request.add_header("Content-Type", kind)
        return self.opener.open(request)

    def get(self, path):
        return json.load(self.http("GET", path))

    def blob(self, repository, data):
        try:
            self.http("HEAD", f"{repository}/blobs/{digest(data)}")
        except urllib.error.HTTPError as e:
            if e.code != 404:
                raise
            upload = self.http("POST", f"{repository}/blobs/uploads/", b"").headers["Location"]
            self.http("PUT", f"{upload}{'&' if '?' in upload else '?'}digest={digest(data)}", data, "application/octet-stream")

    def manifest(self, repository, reference, data, kind):
        self.http("PUT", f"{repository}/manifests/{reference}", data, kind)


def pack(tar, compression):
    if compression == "gzip":
        return gzip.compress(tar, 6, mtime=0)
    return output("zstd", "-q", "-c", input=tar) if compression == "zstd" else tar


class Images:
    def __init__(self, registry):
        self.registry, self.pushed = registry, []

    def push(self, names, layers, config, fmt=DOCKER, index=True, compression="gzip"):
        """Push one image under all the names ("repository:tag"). layers are tars, config is that of the container."""
        for name in names:
            repository, tag = name.rsplit(":", 1)
            entries = [self.manifest(repository, layers, config, fmt, arch, compression) for arch in (("amd64", "arm64") if index else ("amd64",))]
            kind, data = fmt.manifest, entries[0][1]
            if index:
                kind, data = fmt.index, to_json({"schemaVersion": 2, "mediaType": fmt.index, "manifests": [e[0] for e in entries]})
            self.registry.manifest(repository, tag, data, kind)
            self.pushed.append({"name": name, "digest": digest(data), "image_id": entries[0][2], "layers": len(layers)})

    def manifest(self, repository, layers, config, fmt, arch, compression):
        """Push the manifest of one platform. Returns its entry in an index, its bytes and the digest of its config."""
        blobs = [pack(tar, compression) for tar in layers]
        image = to_json({
            "architecture": arch, "os": "linux", "created": "2020-01-01T00:00:00Z", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
            "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "mkimages.py"} for _ in layers],
        })
        for blob in [*blobs, image]:
            self.registry.blob(repository, blob)
        data = to_json({
            "schemaVersion": 2, "mediaType": fmt.manifest,
            "config": {"mediaType": fmt.config, "digest": digest(image), "size": len(image)},
            "layers": [{"mediaType": fmt.layer[compression], "digest": digest(b), "size": len(b)} for b in blobs],
        })
        self.registry.manifest(repository, digest(data), data, fmt.manifest)
        platform = {"architecture": arch, "os": "linux"} | ({"variant": "v8"} if arch == "arm64" else {})
        return {"mediaType": fmt.manifest, "digest": digest(data), "size": len(data), "platform": platform}, data, digest(image)


def compile_c(name, code):
    """A static program, small because of musl."""
    source, program = f"{CACHE}/img/{name}.c", f"{CACHE}/img/{name}"
    with open(source, "w") as f:
        f.write(code)
    output("musl-gcc", "-static", "-Os", "-s", "-o", program, source)
    with open(program, "rb") as f:
        return f.read()


def busybox_layer(program):
    """As in docker's busybox every applet is a hard link in /bin: MaskedPaths on /bin/ls must hide that name alone."""
    with open(program, "rb") as f:
        layer = Layer().dir("bin").file("bin/busybox", f.read(), 0o755)
    for applet in sorted(output(program, "--list").decode().split()):
        if applet != "busybox" and "/" not in applet:
            layer.link("bin/" + applet, "bin/busybox")
    layer.dir("usr/bin").link("usr/bin/env", "bin/busybox")
    layer.dir("dev").dir("home", 0o755, 65534, 65534).dir("lib").dir("proc").dir("sys").dir("mnt")
    layer.dir("root", 0o700).dir("tmp", 0o1777).dir("usr/sbin", 0o755, 1, 1).dir("var/spool/mail", 0o755, 8, 8)
    layer.dir("var/www").dir("run").symlink("var/run", "../run")
    layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    layer.file("etc/shadow", "root:*:::::::\n", 0o640).file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    return layer.bytes()


def nginx_layers(debs, port, base):
    libraries = Layer()
    for deb in sorted(glob.glob(f"{debs}/lib*.deb") + glob.glob(f"{debs}/zlib*.deb")):
        libraries.deb(deb, lambda name: ".so" in name and "/gconv/" not in name and "/audit/" not in name)
    nginx = Layer().deb(glob.glob(f"{debs}/nginx_*.deb")[0], lambda name: name == "usr/sbin/nginx")
    nginx.file("etc/nginx/nginx.conf", NGINX_CONF).dir("var/log/nginx").dir("var/lib/nginx")
    nginx.file("usr/share/nginx/html/index.html", "<html><body><h1>Welcome to nginx!</h1></body></html>\n")
    server = Layer().file("etc/nginx/conf.d/default.conf", NGINX_SERVER % port)
    return [base, libraries.bytes(), nginx.bytes(), server.bytes()]


ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
SHELL = {"Env": ENV, "Cmd": ["sh"]}


def push_base(images, base):
    images.push(["e2e-test-images/busybox:1.29-2", "e2e-test-images/busybox:1.36.1-1"], [base], SHELL)
    images.push(["library/busybox:latest", "library/busybox:1.35"], [base], SHELL, OCI)
    pause = Layer().file("pause", compile_c("pause", PAUSE_C), 0o755).bytes()
    for tag in ("3.6", "3.9", "3.10", "3.10.1"):  # 3.9 may not be the image of 3.10, the sandbox image: a spec removes it
        config = {"Env": ENV, "Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/", "Labels": {"creel.test.version": tag}}
        images.push(["pause:" + tag], [pause], config)


def push_cri_tools(images, base):
    """The k8s-staging-cri-tools images, whose users, groups and tags the specs look at."""
    prefix = "k8s-staging-cri-tools/test-image-"
    users = {"user-uid": "1002", "user-username": "www-data", "user-uid-group": "1003:1004", "user-username-group": "www-data:1004"}
    for name, user in users.items():
        images.push([f"{prefix}{name}:latest"], [base], SHELL | {"User": user})
    groups = Layer().file("etc/passwd", PASSWD + "default-user:x:1000:1000:Linux User,,,:/home/default-user:/bin/sh\n")
    groups.file("etc/group", GROUP + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    groups.dir("home/default-user", 0o755, 1000, 1000)
    images.push([prefix + "predefined-group:latest"], [base, groups.bytes()], SHELL | {"User": "1000"})
    for name in ("1", "2", "3", "latest", "digest"):
        images.push([f"{prefix}{name}:latest"], [base, Layer().file("test-image-" + name, "").bytes()], SHELL)
    images.push([f"{prefix}tags:{tag}" for tag in "123"], [base, Layer().file("same-image", "").bytes()], SHELL)
    for tag in ("test", "all"):
        images.push([f"{prefix}tag:{tag}"], [base, Layer().file(tag, "").bytes()], SHELL)


def push_servers(images, base, debs):
    setuid = Layer().file("nnp", compile_c("nnp", NONEWPRIVS_C), 0o4755)
    images.push(["e2e-test-images/nonewprivs:1.3"], [base, setuid.bytes()], {"Env": ENV, "Entrypoint": ["/nnp"]})
    port = {"ExposedPorts": {"80/tcp": {}}}
    httpd = Layer().file("usr/local/bin/httpd-foreground", HTTPD, 0o755).file("www/index.html", "<html><body><h1>It works!</h1></body></html>\n")
    config = {"Env": ENV, "Cmd": ["httpd-foreground"], "StopSignal": "SIGTERM"} | port
    images.push(["e2e-test-images/httpd:2.4.39-4"], [base, httpd.bytes()], config)
    config = {"Env": ENV + ["NGINX_VERSION=debian"], "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"} | port
    images.push(["e2e-test-images/nginx:1.14-2", "e2e-test-images/nginx:1.14-4", "library/nginx:latest"], nginx_layers(debs, 80, base), config)
    images.push(["k8s-staging-cri-tools/hostnet-nginx-amd64:latest"], nginx_layers(debs, 12003, base), config, index=False)


def push_own(images, base):
    """Forms that critest does not cover."""
    lower = Layer().file("d/a", "a").file("d/b", "b").file("o/x", "x").file("o/y", "y").file("f", "f").bytes()
    upper = Layer().file("d/.wh.a", "").file("o/.wh..wh..opq", "").file("o/z", "z").file(".wh.f", "").bytes()
    images.push(["test/whiteout:1"], [base, lower, upper], SHELL, OCI)
    images.push(["test/tar:1"], [base], SHELL, OCI, compression="")
    images.push(["test/zstd:1"], [base], SHELL, OCI, compression="zstd")
    images.push(["test/single:1"], [base], SHELL, OCI, index=False)
    config = {"Env": ENV + ["FOO=bar"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["env; pwd; sleep 1000"], "WorkingDir": "/work",
              "User": "nobody", "Volumes": {"/data": {}}, "Labels": {"a": "b"}, "StopSignal": "SIGUSR1"}
    images.push(["test/config:1"], [base, Layer().dir("data").dir("work").bytes()], config, OCI)
    images.push(["test/manylayers:1"], [base] + [Layer().file(f"l/{i}", str(i)).bytes() for i in range(30)], SHELL, OCI)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--registry", required=True, help="http://HOST:PORT")
    ap.add_argument("--busybox", default=CACHE + "/img/busybox")
    ap.add_argument("--debs", help="folder with the .debs of nginx and its libraries")
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    registry = Registry(args.registry)
    if args.list:
        for repository in registry.get("_catalog?n=1000")["repositories"]:
            print(repository, ",".join(sorted(registry.get(f"{repository}/tags/list")["tags"] or [])))
        return
    if not args.debs:
        ap.error("--debs is needed")
    images, base = Images(registry), busybox_layer(args.busybox)
    push_base(images, base)
    push_cri_tools(images, base)
    push_servers(images, base, args.debs)
    push_own(images, base)
    with open(CACHE + "/img/pushed.json", "w") as f:
        json.dump(images.pushed, f, indent=1)
    for image in images.pushed:
        print(image["name"], image["digest"], image["layers"])


if __name__ == "__main__":
    try:
        main()
    except urllib.error.HTTPError as error:
        sys.exit(f"mkimages.py: {error.url}: {error.code} {error.read()[:300]!r}")
