#!/usr/bin/env python3
"""mklarge.py http://REGISTRY: pushes bench/large:1, about 600 MB in five layers, made of what this system has in /usr."""
import hashlib
import io
import json
import os
import sys
import tarfile

os.environ.setdefault("CREEL_CACHE", "/nonexistent")
sys.argv, arguments = sys.argv[:1], sys.argv[1:]
import importlib.machinery  # noqa: E402
import importlib.util  # noqa: E402

HERE = os.path.dirname(os.path.realpath(__file__))
loader = importlib.machinery.SourceFileLoader("mkimages", os.path.join(HERE, "mkimages.py"))
mkimages = importlib.util.module_from_spec(importlib.util.spec_from_loader("mkimages", loader))
loader.exec_module(mkimages)

SIZE, LAYERS = 600 << 20, 5


def files(top):
    for directory, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def layers():
    """Small files first: a layer of many, and the others of what comes then, until there is enough."""
    buffer, tar, done, share = None, None, 0, SIZE // LAYERS
    for path in (p for top in ("/usr/share", "/usr/lib", "/usr/include", "/usr/bin") for p in files(top)):
        if tar is None:
            buffer = io.BytesIO()
            tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)
        size = os.path.getsize(path)
        if size > 64 << 20:
            continue
        with open(path, "rb") as f:
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode, info.size = os.stat(path).st_mode & 0o777, size
            tar.addfile(info, f)
        done += size + 512
        if buffer.tell() > share:
            tar.close()
            yield buffer.getvalue()
            tar = None
            if done > SIZE:
                return
    if tar is not None:
        tar.close()
        yield buffer.getvalue()


def main():
    if len(arguments) != 1:
        sys.exit(__doc__)
    images = mkimages.Images(mkimages.Registry(arguments[0]))
    tars = list(layers())
    images.push(["bench/large:1"], tars, {"Cmd": ["true"]}, mkimages.OCI, index=False)
    print(f"bench/large:1: {len(tars)} layers, {sum(map(len, tars)) >> 20} MiB, {hashlib.sha256(b''.join(t[:512] for t in tars)).hexdigest()[:12]}")
    json.dump(images.pushed, sys.stdout)


main()
