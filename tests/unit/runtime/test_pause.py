"""The pause program: its file format, and what it does as a process."""

from __future__ import annotations

import os
import platform
import signal
import struct
import subprocess
from functools import partial
from pathlib import Path

import pytest

from agent.runtime.pause import pause_elf, pause_image_name


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_it_is_a_tiny_static_executable(architecture: str, machine: int) -> None:
    elf = pause_elf(architecture)
    assert len(elf) < 300
    assert elf[:7] == b"\x7fELF\x02\x01\x01"
    kind, found, _, entry, segments = struct.unpack_from("<HHIQQ", elf, 16)
    assert (kind, found, segments) == (2, machine, 64)
    load, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", elf, segments)
    assert (load, flags, offset, in_file, in_memory) == (1, 5, 0, len(elf), len(elf))
    assert entry == address + 64 + 56


def test_another_machine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        pause_elf("riscv64")


def test_the_images_tag_follows_from_the_program() -> None:
    assert pause_image_name().startswith("localhost/wherry-pause:")
    assert len(pause_image_name().rpartition(":")[2]) == 12


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the program of this machine")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_ignores_dead_children_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "pause"
    path.write_bytes(pause_elf("amd64"))
    path.chmod(0o755)
    heard = partial(signal.signal, number, signal.SIG_DFL)  # a shell's background jobs ignore SIGINT
    with subprocess.Popen([path], preexec_fn=heard) as process:
        for _ in range(3):
            os.kill(process.pid, signal.SIGCHLD)
        assert process.poll() is None
        os.kill(process.pid, number)
        assert process.wait(5) in (0, -number)  # -number: it came before the program's first instruction
