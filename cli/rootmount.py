"""Programs that need / to be a mount point (buildah, runc), run where it is none: in a plain chroot.

Called by `wherry up` and `image build`. There, the command gets a mount namespace of its own, in which / is bound below
a private tmpfs and chrooted into: the tmpfs is private so that nothing of this shows outside, where it could be taken
for files to delete. Anywhere else commands stay as they are. Containers run there; `exec` into them cannot work, for
their root cannot become the root of a mount namespace.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_SCRIPT = (
    'mount -t tmpfs tmpfs "$1" && mount --make-private "$1" && mkdir "$1/root" && mount --rbind / "$1/root" && '
    'root=$1/root && here=$PWD && shift && exec chroot "$root" sh -c \'cd "$0" && exec "$@"\' "$here" "$@"'
)


def root_is_a_mount() -> bool:
    return any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines())


def with_mounted_root(command: Sequence[str], place: str) -> list[str]:
    """The command line that runs `command` with a mounted /; `place` is an empty directory."""
    own_mounts = ["unshare", "--mount", "--propagation", "unchanged"]
    return [*own_mounts, "sh", "-c", _SCRIPT, "sh", place, *command]


@contextlib.contextmanager
def rooted(command: Sequence[str]) -> Iterator[list[str]]:
    """The command line to run, for as long as it runs."""
    if root_is_a_mount():
        yield list(command)
        return
    place = tempfile.mkdtemp(prefix="wherry-root-")
    try:
        yield with_mounted_root(command, place)
    finally:
        # Where mounts are shared with the parent, the empty tmpfs shows here, too.
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        os.rmdir(place)
