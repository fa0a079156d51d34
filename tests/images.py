"""The image that tests run: a static busybox with its applets linked in /bin, written as an OCI archive at once.

Used by the runtime's, the agent's and the e2e tests. Needs Debian's busybox-static; nothing is pulled.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.runtime.oci import Entry, write_archive

BUSYBOX = "localhost/busybox:1"
NO_CONFIG: Mapping[str, Any] = {}


def write_busybox_image(
    path: Path,
    name: str = BUSYBOX,
    user: str = "",
    *,
    extra: Iterable[Entry] = (),
    config: Mapping[str, Any] = NO_CONFIG,
) -> Path:
    """Write the archive; returns its path. `user` is the image's USER; `extra` and `config` are added."""
    binary = shutil.which("busybox")
    assert binary is not None, "busybox-static is not installed"
    content = Path(binary).read_bytes()
    assert b"ld-linux" not in content[:4096], "busybox is not static: install busybox-static"
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    entries = [Entry("bin/"), Entry("etc/"), Entry("tmp/", mode=0o1777), Entry("root/", mode=0o700)]
    entries += [Entry("bin/busybox", content)]
    entries += [Entry(f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox"]
    entries += [
        Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644),
        Entry("etc/group", b"root:x:0:\nnobody:x:65534:\n", 0o644),
    ]
    entries += extra
    write_archive(path, name, entries, {"Cmd": ["sh"], "Env": ["PATH=/bin"], "User": user, **config})
    return path


def write_nginx_image(path: Path) -> Path:
    """What stands in for nginx: busybox' httpd on port 80, with a page where nginx has its own. It stops at once."""
    entries = [Entry(f"{part}/") for part in ("usr", "usr/share", "usr/share/nginx", "usr/share/nginx/html")]
    entries += [Entry("usr/share/nginx/html/index.html", b"<h1>Welcome to nginx!</h1>\n", 0o644)]
    config = {"Cmd": ["httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"], "StopSignal": "SIGKILL"}
    return write_busybox_image(path, "localhost/nginx:1", extra=entries, config=config)
