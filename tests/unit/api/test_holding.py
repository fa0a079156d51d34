"""A part of a data directory has one holder, and whoever looks sees it until it has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.holding import Held, hold, hold_beside, holder_of, holders

HOLDING = "import sys, pathlib; from api.holding import hold; lock = hold(pathlib.Path(sys.argv[1]), sys.argv[2]); " \
    "print('held', flush=True); sys.stdin.read()"  # fmt: skip


@contextmanager
def another(data_dir: Path, part: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a part inside the block."""
    command = [sys.executable, "-c", HOLDING, str(data_dir), part]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_one_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    with another(tmp_path, "agent") as process:
        with pytest.raises(Held, match=f"{tmp_path} is in use by another agent .process {process.pid}, running for"):
            hold(tmp_path, "agent")
        found = holder_of(tmp_path, "agent")
        assert found is not None
        assert (found.part, found.pid, found.alive, found.supervised) == ("agent", process.pid, True, False)
        hold(tmp_path, "controller").close()
    assert not found.alive
    assert holders(tmp_path) == []
    hold(tmp_path, "agent").close()


def test_a_process_that_got_the_number_of_a_dead_holder_is_not_taken_for_it(tmp_path: Path) -> None:
    with hold(tmp_path, "agent"):
        file = tmp_path / "run" / "agent.lock"
        told = json.loads(file.read_text())
        assert holder_of(tmp_path, "agent") is not None
    for lie in ({"started": told["started"] + 1}, {"boot": "another"}, {"pid": "x"}):
        file.write_text(json.dumps({**told, **lie}))
        assert holder_of(tmp_path, "agent") is None


def test_several_controllers_hold_a_lock_each(tmp_path: Path) -> None:
    with another(tmp_path, "controller") as first, hold_beside(tmp_path, "controller"):
        assert {holder.pid for holder in holders(tmp_path)} == {first.pid, os.getpid()}


def test_the_supervisor_is_ended_first_and_the_controller_last(tmp_path: Path) -> None:
    with hold(tmp_path, "controller"), hold(tmp_path, "agent"), hold(tmp_path, "supervisor"):
        assert [holder.part for holder in holders(tmp_path)] == ["supervisor", "agent", "controller"]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    with hold(tmp_path, "agent"):
        (tmp_path / "run" / "agent.lock").unlink()
        with hold(tmp_path, "agent"):
            assert holder_of(tmp_path, "agent") is not None
