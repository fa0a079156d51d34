"""Flags of the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import parse_arguments


@pytest.mark.parametrize(
    ("flag", "runs", "rests"),
    [
        ("*", ("deployment", "scheduler"), ()),
        ("none", (), ("deployment", "scheduler")),
        ("-*", (), ("deployment", "scheduler")),
        ("*,-deployment", ("scheduler",), ("deployment",)),
        ("deployment", ("deployment",), ("scheduler",)),
    ],
)
def test_controllers_are_chosen_as_kubernetes_does(
    flag: str, runs: tuple[str, ...], rests: tuple[str, ...], tmp_path: Path
) -> None:
    config = parse_arguments(["--data-dir", str(tmp_path), f"--controllers={flag}"])
    assert all(config.runs(name) for name in runs)
    assert not any(config.runs(name) for name in rests)
    assert config.runs_any is bool(runs)


def test_the_certificate_names_every_way_to_reach_the_server(tmp_path: Path) -> None:
    config = parse_arguments(
        ["--data-dir", str(tmp_path), "--advertise-address", "api.example", "--bind-address", "::"]
    )
    assert config.hosts[0] == "api.example"
    assert {"127.0.0.1", "localhost", "kubernetes.default.svc"} <= set(config.hosts)
