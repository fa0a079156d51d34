"""Images out of a Containerfile, by buildah, which runs each `RUN` by runc as Kubernetes runs a container.

Called by `wherry image build`. Invariant: what a recipe (or an image that it begins with) runs has processes, mounts
and users of its own: its root is nobody on this machine, and it sees and signals no process of it. It shares the
network, for recipes fetch things. buildah's "chroot" isolation, which needs no runc, gives none of that.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cli.problems import Problem
from cli.rootmount import rooted

FIRST_ID, ID_COUNT = 1_900_000_000, 200_000_000
"""The machine's ids that stand for a build's: no user, subordinate id (/etc/subuid) or systemd container has them."""
_MOST_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


def build_archive(tag: str, recipe: Path, directory: Path, scratch: Path) -> Path:
    """Builds an image and returns its archive, which lies in `scratch` like all else that is made. Raises Problem."""
    _check_machine()
    archive = scratch / "image.tar"
    ids = f"0:{FIRST_ID}:{ID_COUNT}"
    isolation = ("--isolation", "oci", "--runtime", "runc", "--network", "host")
    users = ("--userns-uid-map", ids, "--userns-gid-map", ids)
    _run_buildah(scratch, "build", *isolation, *users, "-t", tag, "-f", str(recipe), str(directory))
    _run_buildah(scratch, "push", tag, f"docker-archive:{archive}:{tag}")
    return archive


def _check_machine() -> None:
    for program in ("buildah", "runc"):
        if not shutil.which(program):
            raise Problem(f"building images needs {program}", f"On Debian or Ubuntu: apt-get install {program}")
    if not _MOST_NAMESPACES.exists() or _MOST_NAMESPACES.read_text().strip() == "0":
        raise Problem(
            "building images needs user namespaces, and this machine's kernel allows none",
            "sysctl user.max_user_namespaces=15000 allows them, if the kernel has them.",
        )


def _run_buildah(scratch: Path, *arguments: str) -> None:
    """Runs buildah on a storage of its own, so that it works as root anywhere and leaves nothing behind."""
    storage = ["--storage-driver", "vfs", "--root", str(scratch / "storage"), "--runroot", str(scratch / "run")]
    with rooted(["buildah", *storage, *arguments]) as command:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise Problem(f"buildah {arguments[0]} failed with code {done.returncode}; its own words are above")
