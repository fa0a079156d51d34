"""Docker's habits are read as Docker reads them, and what cannot be read is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.copying import Place, parse_place
from cli.docker_options import Mounted, memory_quantity, parse_mount, parse_port
from cli.forwarding import Forward, parse_forward
from cli.problems import Problem


@pytest.mark.parametrize(
    ("text", "quantity"),
    [("64m", "64Mi"), ("64M", "64Mi"), ("64mb", "64Mi"), ("256Mi", "256Mi"), ("1g", "1Gi"), ("1.5g", "1610612736"),
     ("8388608", "8388608"), ("8192k", "8192Ki")],
)  # fmt: skip
def test_memory_is_counted_in_powers_of_1024(text: str, quantity: str) -> None:
    assert memory_quantity(text) == quantity


@pytest.mark.parametrize("text", ["", "lots", "64x", "-1m", "64", "64k", "0m"])
def test_a_size_that_nothing_could_run_in_or_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Problem, match=f"-m {text}: "):
        memory_quantity(text)


@pytest.mark.parametrize(
    ("text", "mounted"),
    [
        ("data:/data", Mounted("data", "/data", False)),
        ("/srv:/srv:ro", Mounted("/srv", "/srv", True)),
        ("./site:/www", Mounted("/home/me/site", "/www", False, here=True)),
        (".:/www", Mounted("/home/me", "/www", False, here=True)),
        ("../x:/x:ro", Mounted("/home/x", "/x", True, here=True)),
    ],
)
def test_mounts_are_volumes_paths_of_the_node_or_directories_of_here(text: str, mounted: Mounted) -> None:
    assert parse_mount(text, Path("/home/me")) == mounted


def test_what_is_no_mount_or_port_is_said_with_what_to_write() -> None:
    with pytest.raises(Problem, match="neither a path nor a volume name") as refused:
        parse_mount("Sub/dir:/x", Path("/"))
    assert refused.value.advice == "A directory of here is ./Sub/dir."
    for text in ("x:1", "80", "80:80/xyz"):
        with pytest.raises(Problem, match="not a port to publish"):
            parse_port(text)
    with pytest.raises(Problem, match="there is no port 70000"):
        parse_port("70000:80")
    assert parse_port("0.0.0.0:8080:80") == {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}


def test_places_of_a_copy_and_ports_of_a_forward_are_told_apart() -> None:
    assert parse_place("web:/etc/hosts") == Place("web", "/etc/hosts")
    assert parse_place("./a:b") == Place("", "./a:b")
    assert parse_place("/tmp/x") == Place("", "/tmp/x")
    assert [parse_forward(text) for text in ("8080:80", "80", ":80", "8080:http")] == [
        Forward(8080, "80"), Forward(80, "80"), Forward(0, "80"), Forward(8080, "http")]  # fmt: skip
    for text in ("", "x:80", "80:", "70000:80", "80:70000"):
        with pytest.raises(Problem):
            parse_forward(text)
