#!/usr/bin/env python3
"""mkimage.py DIR NAME >image.tar: a docker archive (docker save's format) of one layer: DIR's /bin/busybox and its applets."""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile


def layer(program):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "usr/bin"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(info)
        with open(program, "rb") as f:
            data = f.read()
        files = {"bin/busybox": (0o755, data), "etc/passwd": (0o644, b"root:x:0:0:root:/root:/bin/sh\n"), "etc/group": (0o644, b"root:x:0:\n")}
        for name, (mode, content) in files.items():
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(content)
            tar.addfile(info, io.BytesIO(content))
        for applet in subprocess.run([program, "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout.split():
            if applet != "busybox" and "/" not in applet:
                info = tarfile.TarInfo("bin/" + applet)
                info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
                tar.addfile(info)
    return buffer.getvalue()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    program = next(p for p in (os.path.join(sys.argv[1], d, "busybox") for d in ("bin", "usr/bin")) if os.path.exists(p))
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    tar = layer(program)
    config = json.dumps({
        "architecture": arch, "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "mkimage.py"}],
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [sys.argv[2]], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        for path, data in (("manifest.json", manifest), (name, config), ("layer.tar", tar)):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


main()
