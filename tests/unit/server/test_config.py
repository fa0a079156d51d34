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


def test_the_serving_certificate_names_the_first_service_address(tmp_path: Path) -> None:
    config = parse_arguments(["--data-dir", str(tmp_path), "--service-cluster-ip-range", "10.20.0.0/16,fd00:20::/112"])
    assert {"10.20.0.1", "fd00:20::1"} <= set(config.hosts) and "10.96.0.1" not in config.hosts


@pytest.mark.parametrize(
    "flag",
    [
        "--service-cluster-ip-range=10.0.0.0/8",
        "--service-cluster-ip-range=10.96.0.1/16",
        "--service-node-port-range=0-10",
        "--load-balancer-pool=192.0.2.9-192.0.2.1",
    ],
)
def test_bad_ranges_are_refused_with_a_reason(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--data-dir", str(tmp_path), flag])
    assert "error: argument" in capsys.readouterr().err


def test_the_service_kubernetes_never_leads_to_loopback_or_a_name(tmp_path: Path) -> None:
    hosts = ("api.example", "127.0.0.1", "192.0.2.7")
    arguments = [part for host in hosts for part in ("--advertise-address", host)]
    assert parse_arguments(["--data-dir", str(tmp_path), *arguments]).endpoint_address == "192.0.2.7"
