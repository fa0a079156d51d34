"""What a build's commands see of the machine that they run on."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from cli.building import FIRST_ID, build_archive
from cli.problems import Problem

RECIPE = """FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY own /own
RUN busybox id -u >/seen; busybox cat /proc/self/uid_map >>/seen; busybox ls /proc | busybox grep -c '^[0-9]' >>/seen
RUN busybox kill -0 {pid} 2>/dev/null && echo "the machine's processes can be killed" >>/seen; busybox chown 1234:5 /own
"""


@pytest.mark.root
def test_what_a_recipe_runs_is_root_of_its_own_and_sees_no_process_of_the_machine(tmp_path: Path) -> None:
    context, scratch = tmp_path / "context", tmp_path / "scratch"
    context.mkdir(mode=0o700)
    scratch.mkdir(mode=0o700)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, context / "busybox")
    (context / "own").touch(mode=0o600)
    (context / "Containerfile").write_text(RECIPE.format(pid=os.getpid()))
    archive = build_archive("localhost/isolated:1", context / "Containerfile", context, scratch)
    files = layer_files(archive)
    user, mapping, processes = files["seen"][1].decode().splitlines()
    assert user == "0" and mapping.split()[:2] == ["0", str(FIRST_ID)]
    assert int(processes) < 10
    owners = {name: (member.uid, member.gid) for name, (member, _) in files.items()}
    assert owners["own"] == (1234, 5) and owners["bin/busybox"] == (0, 0)


def test_a_recipe_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nNONSENSE\n")
    with pytest.raises(Problem, match="buildah build failed"):
        build_archive("localhost/x:1", tmp_path / "Containerfile", tmp_path, tmp_path / "scratch")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match="building images needs buildah"):
        build_archive("localhost/x:1", tmp_path / "Containerfile", tmp_path, tmp_path / "scratch")


def layer_files(archive: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Every file of an image, by its path, with its bytes."""
    found = {}
    with tarfile.open(archive) as image:
        for layer in (member for member in image.getmembers() if member.name.endswith(".tar") and member.isfile()):
            opened = image.extractfile(layer)
            assert opened is not None
            with tarfile.open(fileobj=io.BytesIO(opened.read())) as files:
                for member in files.getmembers():
                    content = files.extractfile(member) if member.isfile() else None
                    found[member.name] = (member, content.read() if content else b"")
    return found
