"""Processes whose log's disk is full, and a part that cannot be started: told where it can be, and survived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.supervisor import Program

SURVIVES = "print('goes on', file=open(1, 'w'))"
LOGS = f"import structlog, api.logs; api.logs.configure_logs(); structlog.get_logger().info('x' * 9999); {SURVIVES}"
SAYS = (
    "import os; from cli.supervisor import say; kept = os.dup(1); os.dup2(os.open('/dev/full', 1), 1); say('x' * 999); "
    f"os.dup2(kept, 1); {SURVIVES}"
)


@pytest.mark.parametrize("program", [LOGS, SAYS], ids=["controller and agent", "supervisor"])
def test_a_log_on_a_full_disk_loses_lines_and_ends_nobody(program: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)
    assert b"goes on" in done.stdout


def test_a_part_that_cannot_be_started_is_tried_again_and_later_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program("agent", [str(tmp_path / "missing")], tmp_path)
    program.tend(100.0)
    assert program.due == 100.5 and program.pause == 1.0
    program.tend(100.2)
    assert program.due == 100.5
    program.tend(100.6)
    assert program.due == 101.6
    assert capsys.readouterr().out.count("agent cannot be started: [Errno 2]") == 2
