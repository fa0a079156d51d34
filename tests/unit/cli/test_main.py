"""How the command line is read, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from cli import containers, pods, reading, workloads
from cli.main import COMMANDS, wherry
from cli.terminal import joined


def understood(*argv: str) -> dict[str, Any]:
    """What a command line says: where it works, and what its command is called with."""
    found: dict[str, Any] = {}

    def called(**given: Any) -> None:
        found.update(click.get_current_context().find_root().obj)
        found.update({name: value for name, value in given.items() if value})

    for command in (pods.logs_command, pods.exec_command, reading.get_command, containers.run_command,
                    workloads.rollout_command.commands["status"]):  # fmt: skip
        before, command.callback = command.callback, called
        try:
            if command.name in argv:
                wherry.main(list(argv), standalone_mode=False)
        finally:
            command.callback = before
    return found


@pytest.mark.parametrize(
    "argv",
    [
        ("-n", "shop", "get", "pods"),
        ("get", "pods", "-n", "shop"),
        ("get", "-n", "shop", "pods"),
        ("logs", "web", "--namespace", "shop"),
        ("exec", "web", "-n", "shop", "--", "ls", "-n"),
        ("exec", "-n", "shop", "web", "head", "-n", "5"),
        ("run", "-n", "shop", "image", "head", "-n", "5"),
        ("rollout", "status", "deployment/web", "-n", "shop"),
    ],
)
def test_the_namespace_may_stand_before_and_after_the_verb(argv: tuple[str, ...]) -> None:
    assert understood(*argv)["namespace"] == "shop"


def test_what_follows_the_pod_belongs_to_the_command() -> None:
    assert understood("exec", "web", "head", "-n", "5")["command"] == ("head", "-n", "5")
    assert understood("exec", "web", "-c", "side", "--", "head", "-c", "5")["command"] == ("head", "-c", "5")
    assert understood("run", "image", "head", "-n", "5")["namespace"] is None


def test_every_command_shows_its_help() -> None:
    for name in COMMANDS:
        command = wherry.get_command(click.Context(wherry), name)
        assert command is not None
        assert command.get_help(click.Context(command, info_name=name))


def test_a_reader_that_goes_away_ends_it_quietly_as_sigpipe_would() -> None:
    program = "from cli import main, reading; import click\n" \
        "reading.get_command.callback = lambda **_: [click.echo('a line') for _ in range(100000)]\n" \
        "main.main()"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", program, "get", "pods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ended:
        assert ended.stdout is not None
        assert ended.stderr is not None
        assert ended.stdout.readline() == b"a line\n"
        ended.stdout.close()
        assert ended.stderr.read() == b""
        assert ended.wait() == 141


@pytest.mark.parametrize(
    ("said", "heard", "shown"),
    [
        (b"one\r\n", b"", b"one\r\n"),
        (b"", b"# ", b"# "),
        (b"one\r\ntwo\r\n", b"two\r\nthree", b"one\r\ntwo\r\nthree"),
        (b"one\r\n", b"two", b"one\r\ntwo"),
        (b"one\r\ntwo", b"wo\r\n", b"one\r\ntwo\r\n"),
    ],
)
def test_what_was_said_before_we_listened_is_shown_once(said: bytes, heard: bytes, shown: bytes) -> None:
    assert joined(said, heard) == shown
