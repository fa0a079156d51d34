"""Keeps a machine's controller and agent running: started by `wherry up`, stopped by `wherry down`.

A process of its own that imports the standard library only (it lives as long as the cluster, so it stays small). It
starts the controller, gets a join token from it, starts the agent, and starts again, with back-off, what ends. SIGTERM
ends the agent, then the controller. It never touches containers: they outlive all three.

usage: python -m cli.supervisor DATA_DIR   (what to run is in DATA_DIR/run/cluster.json)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.2
TOKEN_VARIABLE = "WHERRY_TOKEN"


@dataclass
class Program:
    """One child: how to start it, and how it fared."""

    name: str
    argv: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    due: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self.started = time.monotonic()

    def tend(self, now: float) -> None:
        """Starts it when it is due; notes its end and when to start it again."""
        if self.process is not None:
            if self.process.poll() is None:
                return
            if now - self.started > STEADY_SECONDS:
                self.pause = FIRST_PAUSE_SECONDS
            say(f"{self.name} ended with code {self.process.returncode}; starting it again in {self.pause:.1f} s")
            self.process = None
            self.due = now + self.pause
            self.pause = min(self.pause * 2, LAST_PAUSE_SECONDS)
        if now >= self.due:
            self.start()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not stop in {STOP_SECONDS:.0f} s; killing it")
            self.process.kill()
            self.process.wait()


class Stopped(Exception):
    """SIGTERM or SIGINT came."""


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def raise_stopped(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped


def supervise(data_dir: Path) -> None:
    plan = json.loads((data_dir / "run" / "cluster.json").read_text())
    logs = data_dir / "logs"
    controller = Program("controller", plan["controller"], logs / "controller.log")
    agent = Program("agent", plan["agent"], logs / "agent.log")
    running: list[Program] = [controller]
    try:
        while True:
            for program in running:
                program.tend(time.monotonic())
            if agent not in running and (token := join_token(plan["token"])):
                agent.environment[TOKEN_VARIABLE] = token
                running.append(agent)
            time.sleep(POLL_SECONDS)
    except Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for program in reversed(running):
            program.stop()


def join_token(argv: list[str]) -> str:
    """A token from the running controller, or "" while it does not answer yet."""
    asked = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def main() -> None:
    data_dir = Path(sys.argv[1])
    pid_file = data_dir / "run" / "supervisor.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, raise_stopped)
    signal.signal(signal.SIGINT, raise_stopped)
    try:
        supervise(data_dir)
    except Stopped:
        say("stopped before anything ran")
    finally:
        pid_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
