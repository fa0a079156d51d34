"""Which servers a Service port has, and the commands that bring a running HAProxy there."""

from __future__ import annotations

import pytest

from agent.config import parse_arguments
from agent.network.ingress.backends import Cluster, Pool, Server, make_pool, may_proxy_to
from agent.network.ingress.desired import closed_names
from agent.network.ingress.live import Slot, decide_commands, parse_state
from agent.network.ingress.model import parse_ingress
from agent.network.ingress.routes import Target
from agent.network.model import Endpoint, Service, ServicePort, Slice, SlicePort

A, B, C, D = (("10.0.0.1", 80), ("10.0.0.2", 80), ("10.0.0.3", 80), ("10.0.0.4", 80))
UNUSED = ("127.0.0.1", 1)
KEY = ("ns", "web")


def service(*ports: ServicePort, **parts: str) -> Service:
    given = {"type": "ClusterIP", "external_name": "", **parts}
    return Service(KEY, "u", given["type"], ("10.96.0.9",), False, given["external_name"], ports)


def endpoint(address: str, *, ready: bool = True, serving: bool = True, terminating: bool = False) -> Endpoint:
    return Endpoint((address,), ready, serving, terminating)


def piece(*endpoints: Endpoint, port: int = 8080, name: str = "web", kind: str = "IPv4") -> Slice:
    return Slice(("ns", "s"), "web", kind, (SlicePort(name, "TCP", port),), endpoints)


WEB = ServicePort("web", "TCP", 80)


def pool(*slices: Slice, port: int | str = 80, made: Service | None = None) -> Pool:
    made = made or service(WEB)
    cluster = Cluster({KEY: made}, {KEY: slices}, {"x.test": frozenset({"192.0.2.1"})})
    return make_pool(Target(KEY, port), cluster)


@pytest.mark.proves(
    "Ingress.spec.rules.http.paths.backend.service.port.name",
    "Ingress.spec.rules.http.paths.backend.service.port.number",
    "Ingress.spec.rules.http.paths.backend.service.name",
)
def test_a_port_is_found_by_number_or_name_and_its_servers_by_the_ports_name() -> None:
    wanted = frozenset({("10.0.0.1", 8080)})
    slices = (piece(endpoint("10.0.0.1")), piece(endpoint("10.0.0.9"), name="other"))
    for port in (80, "web"):
        assert pool(*slices, port=port) == Pool("ns_web_80", "", wanted)
    assert pool(*slices, port=81) == Pool("ns_web_81", "", frozenset())


def test_only_ready_endpoints_serve_unless_all_that_serve_are_leaving() -> None:
    leaving = endpoint("10.0.0.1", ready=False, terminating=True)
    dead = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    unready = endpoint("10.0.0.3", ready=False, serving=False)
    assert pool(piece(leaving, dead, unready, endpoint("10.0.0.4"))).servers == {("10.0.0.4", 8080)}
    assert pool(piece(leaving, dead, unready)).servers == {("10.0.0.1", 8080)}
    assert pool(piece(dead, unready)).servers == frozenset()


def test_one_family_serves_and_fqdn_slices_do_not() -> None:
    six = piece(endpoint("fd00::1"), kind="IPv6")
    assert pool(piece(endpoint("10.0.0.1")), six).servers == {("10.0.0.1", 8080)}
    assert pool(six, piece(endpoint("x.test"), kind="FQDN")).servers == {("fd00::1", 8080)}


@pytest.mark.parametrize(
    ("protocol", "options"),
    [("", ""), ("http", ""), ("kubernetes.io/ws", ""), ("kubernetes.io/h2c", "proto h2"), ("https", "ssl verify none")],
)
@pytest.mark.proves("Service.spec.ports.appProtocol")
def test_the_application_protocol_says_how_to_speak(protocol: str, options: str) -> None:
    assert pool(made=service(ServicePort("web", "TCP", 80, 0, protocol))).options == options


def test_an_external_name_is_its_addresses_and_the_port_that_the_ingress_says() -> None:
    external = service(type="ExternalName", external_name="x.test")
    assert pool(port=8443, made=external) == Pool("ns_web_8443", "", frozenset({("192.0.2.1", 8443)}))
    assert pool(port="web", made=external).servers == frozenset()


def test_external_names_do_not_lead_to_the_node_itself() -> None:
    bad = ["127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"]
    assert [address for address in bad if may_proxy_to(address)] == []
    assert may_proxy_to("192.0.2.1")
    assert may_proxy_to("10.0.0.1")


def slots(*given: tuple[Server, bool]) -> list[Slot]:
    return [Slot(f"s{number}", server, idle, 10 - number) for number, (server, idle) in enumerate(given, 1)]


def after(present: list[Slot], wanted: frozenset[Server]) -> tuple[list[str], set[Server]]:
    """The commands, and the servers that then get requests."""
    commands = decide_commands({"p": present}, {"p": wanted})
    state = {slot.name: [slot.server, slot.idle] for slot in present}
    for words in (command.split() for command in commands):
        slot = state[words[2].removeprefix("p/")]
        if words[3] == "addr":
            assert slot[1], "an address changes while no request goes there"
            slot[0] = (words[4], int(words[6]))
        else:
            slot[1] = words[4] == "maint"
    return commands, {server for server, idle in state.values() if not idle}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        (slots((A, False), (UNUSED, True)), frozenset({A, B})),
        (slots((A, False), (B, False)), frozenset({C, D})),
        (slots((A, False), (B, True), (UNUSED, True)), frozenset({B, C})),
        (slots((A, True), (B, True)), frozenset({A, B})),
        (slots((A, False), (B, False)), frozenset()),
    ],
)
def test_the_commands_lead_to_the_wanted_servers_and_then_there_are_none(
    present: list[Slot], wanted: frozenset[Server]
) -> None:
    _, reached = after(present, wanted)
    assert reached == wanted


def test_what_is_right_needs_no_command() -> None:
    assert decide_commands({"p": slots((A, False), (B, True))}, {"p": frozenset({A})}) == []


def test_a_server_that_comes_back_gets_its_slot_back() -> None:
    commands, _ = after(slots((UNUSED, True), (A, True)), frozenset({A}))
    assert commands == ["set server p/s2 state ready"]


def test_new_servers_come_before_old_ones_leave() -> None:
    commands, _ = after(slots((A, False), (UNUSED, True)), frozenset({B}))
    assert commands == [
        "set server p/s2 addr 10.0.0.2 port 80",
        "set server p/s2 state ready",
        "set server p/s1 state maint",
    ]


def test_an_old_worker_takes_what_it_has_room_for() -> None:
    _, reached = after(slots((A, False)), frozenset({B, C}))
    assert len(reached) == 1
    assert reached < {B, C}


def test_haproxys_words_are_read() -> None:
    reply = """
1
# be_id be_name srv_id ...
4 p 1 s1 10.0.0.1 2 0 1 1 20 1 0 0 0 0 0 0 - 80 - 0 0 - - 0
4 p 2 s2 127.0.0.1 0 5 1 1 7 1 0 0 8 0 0 0 - 1 - 0 0 - - 0
"""
    assert parse_state(reply) == {"p": [Slot("s1", A, False, 20), Slot("s2", UNUSED, True, 7)]}
    assert parse_state("Can't find backend.\n") == {}


def test_an_ingress_to_an_external_name_is_told_that_it_is_closed() -> None:
    """The name may be what policies close to the Ingress' namespace."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
    obj = {"metadata": {"name": "i", "namespace": "ns", "uid": "u"}, "spec": {"rules": [{"http": {"paths": [path]}}]}}
    external = service(type="ExternalName", external_name="db.other.svc.cluster.local")
    [finding] = closed_names([parse_ingress(obj)], {("ns", "web"): external})
    assert finding.reason == "ExternalNameClosed" and "--ingress-external-names" in finding.message
    assert list(closed_names([parse_ingress(obj)], {("ns", "web"): service()})) == []
    assert not parse_arguments(["--server", "https://x", "--data-dir", "/x"]).ingress_external_names, "off by default"
