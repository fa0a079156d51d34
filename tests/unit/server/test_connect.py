"""What goes through to an agent: containers, parameters, upgrades, addresses."""

from __future__ import annotations

import pytest

from api.errors import BadRequest, ServiceUnavailable
from controller.server.agents import Backend, address_of
from controller.server.connect import container_of, upgrade_headers
from controller.server.tunnel import Upgrade

TWO = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
}
ONE = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}


def test_the_only_container_need_not_be_named() -> None:
    assert container_of(ONE, "") == "a"
    assert container_of(TWO, "i") == "i"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("", "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"),
        ("x", "container x is not valid for pod p"),
    ],
)
def test_a_doubtful_container_is_refused_as_kubernetes_does(wanted: str, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        container_of(TWO, wanted)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        ("v5.channel.k8s.io", None),
        ("SPDY/3.1+portforward.k8s.io", None),
        ("v5.channel.k8s.io, v4.channel.k8s.io", "v4.channel.k8s.io"),
        ("v4.channel.k8s.io", "v4.channel.k8s.io"),
    ],
)
def test_subprotocols_containerd_does_not_speak_are_declined(offered: str, kept: str | None) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", offered)]
    result = upgrade_headers(headers)
    assert (dict(result).get("Sec-WebSocket-Protocol") if result else None) == kept


def test_spdy_headers_pass_and_credentials_do_not() -> None:
    headers = [
        ("Authorization", "Bearer secret"),
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
        ("X-Stream-Protocol-Version", "v3.channel.k8s.io"),
        ("Cookie", "x"),
    ]
    assert upgrade_headers(headers) == headers[1:5]
    assert upgrade_headers(headers[:1]) is None


def test_the_request_to_the_agent_is_one_request() -> None:
    head = Upgrade("POST", "/exec/ns/p/c?command=a", [("Upgrade", "SPDY/3.1")]).head(Backend("fd00::1", 10250, None))
    assert head == b"POST /exec/ns/p/c?command=a HTTP/1.1\r\nHost: [fd00::1]:10250\r\nUpgrade: SPDY/3.1\r\n\r\n"


def test_an_agent_is_reached_by_its_internal_address_first() -> None:
    node = {
        "metadata": {"name": "n"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "host"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}},
        },
    }
    assert address_of(node) == ("10.0.0.1", 1234)
    with pytest.raises(ServiceUnavailable):
        address_of({"metadata": {"name": "n"}})
