"""Keeps a machine's controller and agent running: started by `wherry up`, stopped by `wherry down`.

A process of its own that imports the standard library only (it lives as long as the cluster, so it stays small). It
starts the controller, gets a join token from it, starts the agent, and starts again, with back-off, what ends. What an
earlier supervisor left running is adopted when it runs as planned, and replaced when it does not (see api/holding.py).
SIGTERM ends the agent, then the controller. It never touches containers: they outlive all three.

usage: python -m cli.supervisor DATA_DIR   (what to run is in DATA_DIR/run/cluster.json)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from api.holding import SUPERVISED_VARIABLE, Held, Holder, hold, holder_of

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.2
TOKEN_VARIABLE = "WHERRY_TOKEN"


@dataclass
class Program:
    """One part of the cluster: how to start it, and how it fared. Its process is our child, or adopted."""

    name: str
    argv: list[str]
    data_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    adopted: Holder | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    due: float = 0.0

    def start(self) -> None:
        with (self.data_dir / "logs" / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment, SUPERVISED_VARIABLE: str(self.data_dir)},
                start_new_session=True,
            )
        self.started = time.monotonic()

    def tend(self, now: float) -> None:
        """Starts or adopts it when it is due; notes its end and when to start it again."""
        if self.runs():
            return
        if self.process is not None or self.adopted is not None:
            if now - self.started > STEADY_SECONDS:
                self.pause = FIRST_PAUSE_SECONDS
            how = f"code {self.process.returncode}" if self.process is not None else "a code that its parent knows"
            say(f"{self.name} ended with {how}; starting it again in {self.pause:.1f} s")
            self.process = self.adopted = None
            self.due = now + self.pause
            self.pause = min(self.pause * 2, LAST_PAUSE_SECONDS)
        if now >= self.due and not self.adopt(now):
            try:
                self.start()
            except OSError as error:
                say(f"{self.name} cannot be started: {error}; trying again in {self.pause:.1f} s")
                self.due = now + self.pause
                self.pause = min(self.pause * 2, LAST_PAUSE_SECONDS)

    def runs(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return self.adopted is not None and self.adopted.alive

    def adopt(self, now: float) -> bool:
        """Whether the part runs already, as planned. One that an earlier supervisor started otherwise is ended."""
        holder = holder_of(self.data_dir, self.name)
        if holder is None:
            return False
        if holder.supervised and holder.argv != self.argv:
            say(f"ending {holder}: it was started with other options")
            end(holder)
            return False
        say(f"adopting {holder}")
        self.adopted, self.started = holder, now
        return True

    def stop(self) -> None:
        if self.adopted is not None:
            end(self.adopted)
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not stop in {STOP_SECONDS:.0f} s; killing it")
            self.process.kill()
            self.process.wait()


def end(holder: Holder) -> None:
    """Ends a process that is not our child: SIGTERM, then SIGKILL; returns when it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not holder.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while holder.alive and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


class Stopped(Exception):
    """SIGTERM or SIGINT came."""


def say(text: str) -> None:
    """A log that cannot be written (its disk is full) loses lines and ends nobody."""
    with contextlib.suppress(OSError):
        print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def raise_stopped(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped


def supervise(data_dir: Path) -> None:
    plan = json.loads((data_dir / "run" / "cluster.json").read_text())
    controller = Program("controller", plan["controller"], data_dir)
    agent = Program("agent", plan["agent"], data_dir)
    running: list[Program] = [controller]
    try:
        while True:
            for program in running:
                program.tend(time.monotonic())
            if agent not in running and holder_of(data_dir, "agent") is not None:
                running.append(agent)  # one that runs needs no token to be adopted
            elif agent not in running and (token := join_token(plan["token"])):
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
    signal.signal(signal.SIGTERM, raise_stopped)
    signal.signal(signal.SIGINT, raise_stopped)
    try:
        with hold(data_dir, "supervisor"):
            supervise(data_dir)
    except Stopped:
        say("stopped before anything ran")
    except Held as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
