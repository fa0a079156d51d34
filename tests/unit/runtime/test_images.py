"""Names, pull policy and credentials of images."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from agent.runtime.images import credentials_for, full_name, must_pull, pull_policy, read_docker_config
from agent.runtime.reference import normalize, parse_reference

_DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("localhost/busybox:1", "localhost/busybox:1"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        (f"busybox:1@{_DIGEST}", f"docker.io/library/busybox@{_DIGEST}"),
        (f"ghcr.io/a/b@{_DIGEST}", f"ghcr.io/a/b@{_DIGEST}"),
        ("sha256:abc/", "sha256:abc/"),
    ],
)
def test_short_names_stand_for_full_ones(short: str, full: str) -> None:
    assert normalize(short) == full


@pytest.mark.parametrize(
    "text", ["", "ghcr.io/Upper", "a b", "x:", "x@sha256:12", "-x", "x/../y", "docker.io/", "x:a/b:c:d"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="couldn't parse image name"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("image", "declared", "policy"),
    [
        ("busybox", "", "Always"),
        ("busybox:latest", "", "Always"),
        ("busybox:1", "", "IfNotPresent"),
        (f"busybox@{_DIGEST}", "", "IfNotPresent"),
        ("busybox", "Never", "Never"),
        ("not a name", "", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag_unless_declared(image: str, declared: str, policy: str) -> None:
    assert pull_policy(image, declared) == policy


def test_only_the_policy_always_pulls_what_is_here() -> None:
    assert must_pull("Always", True) and must_pull("Always", False)
    assert must_pull("IfNotPresent", False) and not must_pull("IfNotPresent", True)
    assert not must_pull("Never", False)


def _config(**auths: str) -> dict[str, Any]:
    return {"auths": {key: {"auth": base64.b64encode(value.encode()).decode()} for key, value in auths.items()}}


def test_the_most_specific_registry_key_comes_first() -> None:
    configs: list[dict[str, Any]] = [
        {"auths": {"https://ghcr.io": {"username": "any", "password": "1"}}},
        {"ghcr.io/team": {"username": "team", "password": "2"}, "quay.io": {"username": "no"}},
        {"auths": {"ghcr.io/team/app": {"username": "app", "password": "3"}}},
    ]
    assert [auth.username for auth in credentials_for("ghcr.io/team/app:1", configs)] == ["app", "team", "any"]
    assert [auth.username for auth in credentials_for("ghcr.io/teamwork/app", configs)] == ["any"]


def test_docker_hubs_many_names_and_wildcards_match() -> None:
    hub = _config(**{"https://index.docker.io/v1/": "me:secret"})
    (auth,) = credentials_for("busybox", [hub])
    assert (auth.username, auth.password) == ("me", "secret")
    starred = _config(**{"*.example.com": "star:s"})
    assert [auth.username for auth in credentials_for("r.example.com/x", [starred])] == ["star"]
    assert credentials_for("a.b.example.com/x", [starred]) == []


def test_a_broken_secret_opens_nothing_and_breaks_nothing() -> None:
    assert read_docker_config(b"{not json") == {} and read_docker_config(b"[1]") == {}
    (auth,) = credentials_for("ghcr.io/x", [{"auths": {"ghcr.io": {"auth": "%%%"}}}])
    assert auth.username == ""
    assert credentials_for("ghcr.io/x", [{"auths": "nonsense"}, {"auths": {"ghcr.io": 3}}]) == []


def test_an_imported_bare_name_is_a_name() -> None:
    assert full_name("import-2026-11-24:hello") == "docker.io/library/hello:latest"
    assert full_name("localhost/hello:2") == "localhost/hello:2"
