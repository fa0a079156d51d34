"""Volumes and logs on a real disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from agent.logkeeper import LiveLog, LogKeeper, LogLimits, bound_ended, forget_oldest, tidy
from agent.logs import LogOptions, last_lines, read_log
from agent.paths import Paths
from agent.pods.env import ConfigFault
from agent.pods.fields import Facts
from agent.runtime.fake import FakeRuntime
from agent.runtime.mounts import unmount_under
from agent.sources import SourceReader
from agent.volumes.atomic import write_payload
from agent.volumes.host import prepare_host_path
from agent.volumes.payload import File, VolumeFault
from agent.volumes.places import close_data_directory
from agent.volumes.subpaths import open_inner
from agent.volumes.volumes import Volumes, memory_size, remove_pod_directory
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
    assert mounted_bytes(target) == 1 << 20 and mode_of(str(target)) == 0o1777  # as on the kubelet
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


@pytest.mark.root
async def test_a_directory_made_for_a_sub_path_is_never_set_user_id(paths: Paths) -> None:
    pod = mount("emptyDir", subPath="x")
    await volumes(paths).mount(pod, FACTS)
    paths.volume(UID, "empty-dir", "v").chmod(0o6777)  # by root in a container
    (made,) = await volumes(paths).container_mounts(pod, pod["spec"]["containers"][0], {})
    assert mode_of(made.host_path) == 0o2777


@contextlib.contextmanager
def right_after(call: object, act: Callable[[], None]) -> Iterator[None]:
    """Does `act` at the worst moment: each time a built-in function has returned."""

    def watch(frame: FrameType, event: str, what: object) -> None:
        if event == "c_return" and what is call:
            sys.setprofile(None)
            act()
            sys.setprofile(watch)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.root
def test_a_sub_path_that_is_swapped_for_a_link_changes_nothing_outside_the_volume(tmp_path: Path) -> None:
    victim, volume = tmp_path / "victim", tmp_path / "volume"
    victim.touch(mode=0o600)
    volume.mkdir(mode=0o777)

    def swap() -> None:
        (volume / "x").rename(volume / "moved")
        (volume / "x").symlink_to(victim)

    with right_after(os.mkdir, swap), pytest.raises(OSError, match="symbolic links"):
        os.close(open_inner(volume, "x/y"))
    assert mode_of(str(victim)) == 0o600


@pytest.mark.root
async def test_a_sub_path_may_be_a_link_that_stays_in_the_volume(paths: Paths) -> None:
    pod = mount("emptyDir", subPath="link/new")
    await volumes(paths).mount(pod, FACTS)
    root = paths.volume(UID, "empty-dir", "v")
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    await volumes(paths).container_mounts(pod, pod["spec"]["containers"][0], {})
    assert mode_of(str(root / "real" / "new")) == 0o777


@pytest.mark.parametrize(
    "expression, text",
    [
        ("$(N)/$(M)/$(N)", "missing value for M, N"),
        ("$(EMPTY)", "missing value for EMPTY"),
        ("$(UP)/x", "unable to provision SubPath `../x`: must not contain '..'"),
        ("$(TOP)", "error SubPath `/etc` must not be an absolute path"),
    ],
)
async def test_a_sub_path_of_variables_needs_them_all_and_stays_inside(
    paths: Paths, expression: str, text: str
) -> None:
    pod = mount("emptyDir", subPathExpr=expression)
    await volumes(paths).mount(pod, FACTS)
    with pytest.raises(ConfigFault) as caught:
        values = {"EMPTY": "", "UP": "..", "TOP": "/etc"}
        await volumes(paths).container_mounts(pod, pod["spec"]["containers"][0], values)
    assert caught.value.message == text
    assert list(paths.volume(UID, "empty-dir", "v").iterdir()) == []


def test_a_version_that_leads_elsewhere_is_not_removed(tmp_path: Path) -> None:
    """Whoever could write into the volume must not be able to have root delete another directory."""
    elsewhere, volume = tmp_path / "elsewhere", tmp_path / "volume"
    volume.mkdir()
    for target in (str(elsewhere), "../elsewhere", "..2026_01_02_03_04_05.000001"):
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / "kept").touch()
        (volume / "..data").unlink(missing_ok=True)
        (volume / "..data").symlink_to(target)
        if not (volume / target).exists():
            (volume / target).symlink_to(elsewhere)
        assert write_payload(volume, {"a": File(target.encode())})
        assert (volume / "a").read_text() == target
        assert (elsewhere / "kept").exists()


@pytest.mark.root
async def test_what_the_agent_keeps_for_pods_is_closed_to_other_users(paths: Paths) -> None:
    downward = {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    pod = a_pod(volumes=[{"name": "e", "emptyDir": {}}, {"name": "d", **downward}], securityContext={"fsGroup": 1234})
    assert await volumes(paths).mount(pod, FACTS) == []
    d = paths.volume(UID, "downward-api", "d")
    assert {mode_of(str(above)) for above in (paths.pods, paths.pod(UID), d.parent, d.parent.parent)} == {0o750}
    assert (mode_of(str(d)), d.stat().st_gid, (d / "name").read_text()) == (0o2755, 1234, "p")
    d.chmod(0o777)  # as before
    await volumes(paths).refresh(pod, FACTS)
    assert mode_of(str(d)) == 0o2755


@pytest.mark.root
def test_a_data_directory_is_closed_unless_it_is_somebody_elses(tmp_path: Path) -> None:
    for name, before, after in (("new", (), 0o700), ("ours", ("pki", "pods"), 0o700), ("srv", ("www",), 0o755)):
        paths = Paths(tmp_path / name)
        for part in before:
            (paths.root / part).mkdir(parents=True)
        close_data_directory(paths.root, paths.pods, paths.logs)
        assert [mode_of(str(place)) for place in (paths.root, paths.pods, paths.logs)] == [after, 0o750, 0o750]


# Mounts are seen, not remembered.


def in_memory() -> Object:
    downward = {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    return a_pod(volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "d", **downward}])


@pytest.mark.root
async def test_after_a_boot_memory_is_mounted_again_and_nothing_of_it_is_on_the_disk(paths: Paths) -> None:
    pod = in_memory()
    assert await volumes(paths).mount(pod, FACTS) == []
    assert await volumes(paths).standing([pod]) == {UID}
    unmount_under(paths.root)  # what a boot does
    assert await volumes(paths).standing([pod]) == set()
    places = [paths.volume(UID, "empty-dir", "m"), paths.volume(UID, "downward-api", "d")]
    for place in places:
        (place / "written-to-the-disk").touch()
    assert await volumes(paths).mount(pod, FACTS) == []
    assert all(mounted_bytes(place) for place in places)
    assert [sorted(os.listdir(place))[-1:] for place in places] == [[], ["name"]]
    unmount_under(paths.root)
    assert [os.listdir(place) for place in places] == [[], []]


def mount_lines(root: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]


@pytest.mark.root
async def test_memory_is_not_swapped_to_the_disk_where_the_kernel_can_promise_that(paths: Paths) -> None:
    await volumes(paths).mount(in_memory(), FACTS)
    mounts = mount_lines(paths.root)
    numbers = tuple(int(number) for number in platform.release().split(".")[:2])
    assert len(mounts) == 2 and all(("noswap" in line) == (numbers >= (6, 4)) for line in mounts)


@pytest.mark.root
async def test_a_refresh_does_not_write_to_the_disk_when_the_mount_is_gone(paths: Paths) -> None:
    pod = in_memory()
    await volumes(paths).mount(pod, FACTS)
    unmount_under(paths.root)
    assert await volumes(paths).refresh(pod, FACTS) == []
    unmount_under(paths.root)
    assert os.listdir(paths.volume(UID, "downward-api", "d")) == []


@pytest.mark.parametrize(
    "limits, node, size",
    [
        ((), 0, 0),
        ((), 1 << 30, 1 << 30),
        (("64Mi", "64Mi"), 1 << 30, 128 << 20),
        (("64Mi", ""), 1 << 30, 1 << 30),
    ],
)
def test_memory_is_bounded_by_its_pod_and_its_node(limits: tuple[str, ...], node: int, size: int) -> None:
    containers = [a_container(f"c{i}", resources={"limits": {"memory": m} if m else {}}) for i, m in enumerate(limits)]
    volume = {"name": "v", "emptyDir": {"medium": "Memory"}}
    assert memory_size(a_pod(*containers), volume, node) == size
    volume["emptyDir"] = {"medium": "Memory", "sizeLimit": "1Mi"}
    assert memory_size(a_pod(*containers), volume, node) == 1 << 20


async def test_a_mount_that_was_given_up_leaves_nothing_behind(paths: Paths) -> None:
    """A thread cannot be cancelled: what takes the volumes away waits for it."""
    pod, mine = mount("emptyDir"), volumes(paths)
    blocker, free = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def block() -> None:
        loop.call_soon_threadsafe(blocker.set)
        free.wait(10)

    blocking = asyncio.create_task(asyncio.to_thread(block))  # so that the mount's thread has to queue
    await blocker.wait()
    mounting = asyncio.create_task(mine.mount(pod, FACTS))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    mounting.cancel()
    await asyncio.wait({mounting})
    free.set()
    await blocking
    await mine.unmount(pod)
    await asyncio.to_thread(lambda: None)  # the one thread has nothing more to do
    assert not paths.pod(UID).exists()
    assert await mine.refresh(in_memory(), FACTS) == []
    assert not paths.pod(UID).exists()


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


SMALL = LogLimits(file_bytes=100_000, files=5)


async def test_a_container_that_writes_all_the_time_keeps_to_its_limits(tmp_path: Path) -> None:
    """As `yes` does: three megabytes against 100 kB x 5, looked at all along."""
    file = tmp_path / "logs" / "p" / "c" / "0.log"
    keeper = LogKeeper(Paths(tmp_path), Reopening(), SMALL)
    keeping = asyncio.create_task(keeper.rotate(lambda: [LiveLog("c", file)]))
    most = 0
    for number in range(300):
        write_log(file, *(f"line {number} {line} {os.urandom(40).hex()}" for line in range(100)))
        if number > 75:  # its rate is known by then
            most = max(most, sum(one.stat().st_size for one in file.parent.iterdir()))
        await asyncio.sleep(0.01)
    keeping.cancel()
    assert most < SMALL.file_bytes * SMALL.files + 100_000
    text = await whole(file, LogOptions())
    lines = text.decode().splitlines()
    assert lines[-1].startswith("line 299 99 ") and len(lines) > 2000
    numbers = [int(line.split()[1]) * 100 + int(line.split()[2]) for line in lines]
    assert numbers == list(range(numbers[0], 30_000))  # none is missing in the middle, none is there twice
    assert [file.suffix for file in sorted(file.parent.glob("*.gz"))]
    assert len((await whole(file, LogOptions(tail=2500))).splitlines()) == 2500


async def test_following_misses_no_line_of_a_container_that_writes_quickly(tmp_path: Path) -> None:
    file = tmp_path / "0.log"
    write_log(file, "0")
    over, seen = False, b""

    async def ended() -> bool:
        return over

    async def follow() -> None:
        nonlocal seen
        async for piece in read_log(file, LogOptions(follow=True), ended):
            seen += piece

    task = asyncio.create_task(follow())
    await _until(lambda: seen == b"0\n")
    for number in range(1, 4):  # before the reader looks again
        file.rename(file.with_name(f"0.log.20260101-00000{number}.000000"))
        write_log(file, str(number))
    tidy(file, LogLimits(files=9))
    over = True
    async with asyncio.timeout(5):
        await task
    assert seen == b"0\n1\n2\n3\n"


def test_a_burst_beyond_all_limits_leaves_its_end_only(tmp_path: Path) -> None:
    file = tmp_path / "p" / "c" / "0.log"
    write_log(file, *(f"line {number}" for number in range(20_000)))
    os.utime(file, (1, 1))
    bound_ended(tmp_path, SMALL)
    assert 0 < file.stat().st_size <= SMALL.file_bytes
    assert last_lines(file, 1, 100) == b"line 19999\n"
    rotated = file.with_name("0.log.20260101-000001.000000")
    write_log(rotated, *(f"line {number}" for number in range(20_000)))
    tidy(file, SMALL)
    assert rotated.stat().st_size <= SMALL.file_bytes


class Reopening(FakeRuntime):
    """Its containers' logs are the test's own."""

    async def reopen_log(self, container_id: str) -> None:
        del container_id
