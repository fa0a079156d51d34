"""Volumes and logs on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.logkeeper import forget_oldest
from agent.logs import LogOptions, last_lines, read_log
from agent.paths import Paths
from agent.pods.env import ConfigFault
from agent.pods.fields import Facts
from agent.sources import SourceReader
from agent.volumes.atomic import write_payload
from agent.volumes.host import prepare_host_path
from agent.volumes.payload import File, VolumeFault
from agent.volumes.volumes import Volumes, remove_pod_directory
from api.client import Client
from api.objects import Object
from api.tls import Credentials
from tests.unit.agent.builders import UID, a_container, a_pod

FACTS = Facts("n1", ("192.0.2.1",))
STAMP = "2026-01-02T03:04:05.000000000Z stdout F"


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    yield Paths(tmp_path)
    remove_pod_directory(Paths(tmp_path).pod(UID))


def volumes(paths: Paths) -> Volumes:
    return Volumes(paths, SourceReader(Client("http://127.0.0.1:9", Credentials())))


def mount(name: str, **fields: object) -> Object:
    return a_pod(
        a_container(volumeMounts=[{"name": "v", "mountPath": "/v", **fields}]), volumes=[{"name": "v", name: {}}]
    )


def mode_of(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def mounted_bytes(path: Path) -> int:
    """The size of the file system mounted at a path; 0 when none is."""
    found = os.statvfs(path) if os.path.ismount(path) else None
    return found.f_blocks * found.f_frsize if found else 0


# A payload changes all at once.


def test_a_payload_is_shown_through_one_link_and_replaced_as_a_whole(tmp_path: Path) -> None:
    assert write_payload(tmp_path, {"a": File(b"1"), "sub/b": File(b"2", 0o400)})
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert (tmp_path / "sub" / "b").read_bytes() == b"2"
    assert (tmp_path / "..data" / "sub" / "b").stat().st_mode & 0o777 == 0o400
    assert not write_payload(tmp_path, {"a": File(b"1"), "sub/b": File(b"2", 0o400)})
    first = os.readlink(tmp_path / "..data")
    assert write_payload(tmp_path, {"a": File(b"3")})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "sub").exists() and not (tmp_path / first).exists()


@pytest.mark.parametrize("path", ["../x", "/x", "..x", ""])
def test_a_payload_stays_inside_its_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(VolumeFault):
        write_payload(tmp_path, {path: File(b"")})


def test_host_paths_are_made_and_checked(tmp_path: Path) -> None:
    prepare_host_path(tmp_path / "d" / "e", "DirectoryOrCreate")
    assert (tmp_path / "d" / "e").is_dir()
    prepare_host_path(tmp_path / "f", "FileOrCreate")
    prepare_host_path(tmp_path / "f", "File")
    prepare_host_path(tmp_path / "nothing", "")
    with pytest.raises(VolumeFault, match="is not a directory"):
        prepare_host_path(tmp_path / "f", "Directory")


async def test_empty_dirs_are_for_everybody_and_go_with_the_pod(paths: Paths) -> None:
    pod = mount("emptyDir")
    assert await volumes(paths).mount(pod, FACTS) == []
    (made,) = await volumes(paths).container_mounts(pod, pod["spec"]["containers"][0], {})
    assert (made.container_path, made.readonly) == ("/v", False)
    assert mode_of(made.host_path) == 0o777
    await volumes(paths).unmount(pod)
    assert not paths.pod(UID).exists()


@pytest.mark.root
async def test_memory_is_a_file_system_of_its_own(paths: Paths) -> None:
    pod = a_pod(volumes=[{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])
    assert await volumes(paths).mount(pod, FACTS) == []
    target = paths.volume(UID, "empty-dir", "v")
    assert mounted_bytes(target) == 1 << 20
    await volumes(paths).unmount(pod)
    assert mounted_bytes(target) == 0


@pytest.mark.root
async def test_a_sub_path_is_made_inside_the_volume_and_cannot_leave_it(paths: Paths) -> None:
    pod = mount("emptyDir", subPathExpr="$(N)/x")
    container = pod["spec"]["containers"][0]
    await volumes(paths).mount(pod, FACTS)
    (made,) = await volumes(paths).container_mounts(pod, container, {"N": "deep"})
    root = paths.volume(UID, "empty-dir", "v")
    (root / "deep" / "x" / "file").write_text("seen")
    assert (Path(made.host_path) / "file").read_text() == "seen"
    (root / "evil").symlink_to("/etc")
    with pytest.raises(ConfigFault, match="failed to prepare subPath"):
        await volumes(paths).container_mounts(pod, container, {"N": "evil"})
    await volumes(paths).unmount(pod)
    assert mode_of("/etc/passwd")


async def test_a_volume_that_nobody_can_make_is_named(paths: Paths) -> None:
    (fault,) = await volumes(paths).mount(mount("nfs"), FACTS)
    assert (fault.volume, fault.message) == ("v", "this node cannot make volumes of kind nfs")
    (away,) = await volumes(paths).mount(a_pod(volumes=[{"name": "v", "configMap": {"name": "x"}}]), FACTS)
    assert away.message.startswith("cannot reach")


# Logs.


def write_log(file: Path, *texts: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.writelines(f"{STAMP} {text}\n" for text in texts)


async def whole(file: Path, options: LogOptions) -> bytes:
    async def ended() -> bool:
        return True

    return b"".join([piece async for piece in read_log(file, options, ended)])


async def test_logs_are_read_whole_from_their_end_and_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "0.log"
    write_log(file.with_name("0.log.20260101-000000"), "oldest")
    write_log(file, *(f"line {number}" for number in range(20_000)))
    assert (await whole(file, LogOptions())).startswith(b"oldest\nline 0\n")
    assert await whole(file, LogOptions(tail=2)) == b"line 19998\nline 19999\n"
    assert (await whole(file, LogOptions(tail=20_001))).startswith(b"oldest\n")
    assert await whole(file, LogOptions(tail=0)) == b""
    assert await whole(file, LogOptions(limit_bytes=9)) == b"oldest\nli"
    assert last_lines(file, 2, 10) == b"ine 19999\n"
    assert await whole(tmp_path / "none.log", LogOptions(tail=3)) == b""


async def test_following_sees_new_lines_rotation_and_the_end(tmp_path: Path) -> None:
    file = tmp_path / "0.log"
    write_log(file, "first", "second")
    over = False

    async def ended() -> bool:
        return over

    seen: list[bytes] = []

    async def follow() -> None:
        async for piece in read_log(file, LogOptions(follow=True, tail=1), ended):
            seen.append(piece)

    task = asyncio.create_task(follow())
    await _until(lambda: b"".join(seen) == b"second\n")
    write_log(file, "third")
    await _until(lambda: b"".join(seen).endswith(b"third\n"))
    file.rename(tmp_path / "0.log.20260101-000000")
    write_log(file, "fourth")
    await _until(lambda: b"".join(seen).endswith(b"fourth\n"))
    over = True
    write_log(file, "last")
    async with asyncio.timeout(5):
        await task
    assert b"".join(seen) == b"second\nthird\nfourth\nlast\n"


async def _until(holds: object) -> None:
    assert callable(holds)
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


def test_logs_of_gone_pods_are_kept_within_the_budget(tmp_path: Path) -> None:
    for age, name in ((300, "oldest"), (200, "older"), (100, "alive")):
        write_log(tmp_path / name / "c" / "0.log", "x" * 1000)
        os.utime(tmp_path / name / "c" / "0.log", (1000 - age, 1000 - age))
    assert forget_oldest(tmp_path, {tmp_path / "alive"}, 2500) == 1
    assert sorted(left.name for left in tmp_path.iterdir()) == ["alive", "older"]
    assert forget_oldest(tmp_path, {tmp_path / "alive"}, 0) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["alive"]
