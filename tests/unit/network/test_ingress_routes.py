"""Which request goes where: the table of Kubernetes' own examples, conflicts, defaults, and the files made of it."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import pytest

from agent.network.ingress import config
from agent.network.ingress.backends import Pool
from agent.network.ingress.config import Plan, Site, fingerprint, ports_of, render_files, room_for, slots_of
from agent.network.ingress.model import Ingress, parse_ingress
from agent.network.ingress.routes import Table, Target, compile_routes
from tests.ingress_model import choose


def ingress(
    name: str, *rules: tuple[str, str, str, str], created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> Ingress:
    """`rules`: (host, path, type, service)."""
    listed = []
    for host, path, kind, service in rules:
        backend = {"service": {"name": service, "port": {"number": 80}}}
        paths = [{"path": path, "pathType": kind, "backend": backend}]
        listed.append({**({"host": host} if host else {}), "http": {"paths": paths}})
    metadata = {"namespace": "ns", "name": name, "uid": name, "creationTimestamp": created}
    return parse_ingress({"metadata": metadata, "spec": {"rules": listed, **spec}})


def default(service: str) -> dict[str, Any]:
    return {"defaultBackend": {"service": {"name": service, "port": {"number": 80}}}}


def service_for(table: Table, host: str, path: str) -> str:
    target = choose(table, host, path)
    return target.service[1] if target else ""


# kubernetes.io/docs/concepts/services-networking/ingress, "Examples" of path matching.
@pytest.mark.parametrize(
    ("kind", "paths", "request_path", "matched"),
    [
        ("Prefix", ["/"], "/any/path", "/"),
        ("Exact", ["/foo"], "/foo", "/foo"),
        ("Exact", ["/foo"], "/bar", ""),
        ("Exact", ["/foo"], "/foo/", ""),
        ("Exact", ["/foo/"], "/foo", ""),
        ("Prefix", ["/foo"], "/foo", "/foo"),
        ("Prefix", ["/foo"], "/foo/", "/foo"),
        ("Prefix", ["/foo/"], "/foo", "/foo/"),
        ("Prefix", ["/foo/"], "/foo/", "/foo/"),
        ("Prefix", ["/aaa/bb"], "/aaa/bbb", ""),
        ("Prefix", ["/aaa/bbb"], "/aaa/bbb", "/aaa/bbb"),
        ("Prefix", ["/aaa/bbb/"], "/aaa/bbb", "/aaa/bbb/"),
        ("Prefix", ["/aaa/bbb"], "/aaa/bbb/", "/aaa/bbb"),
        ("Prefix", ["/aaa/bbb"], "/aaa/bbb/ccc", "/aaa/bbb"),
        ("Prefix", ["/aaa/bbb"], "/aaa/bbbxyz", ""),
        ("Prefix", ["/", "/aaa"], "/aaa/ccc", "/aaa"),
        ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/aaa/bbb", "/aaa/bbb"),
        ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/ccc", "/"),
        ("Prefix", ["/aaa"], "/ccc", ""),
        ("ImplementationSpecific", ["/foo"], "/foo/x", "/foo"),
    ],
)
@pytest.mark.proves("Ingress.spec.rules.http.paths.path", "Ingress.spec.rules.http.paths.pathType")
def test_paths_match_as_kubernetes_says(kind: str, paths: list[str], request_path: str, matched: str) -> None:
    table = compile_routes([ingress("i", *(("", path, kind, path) for path in paths))])
    assert service_for(table, "a.test", request_path) == matched


@pytest.mark.proves("Ingress.spec.rules.host")
def test_exact_comes_before_prefix_and_hosts_before_wildcards_before_any() -> None:
    table = compile_routes(
        [
            ingress("i", ("", "/foo", "Prefix", "prefix"), ("", "/foo", "Exact", "exact")),
            ingress("j", ("a.test", "/", "Prefix", "host"), ("*.test", "/foo", "Prefix", "wildcard")),
        ]
    )
    assert service_for(table, "b.other", "/foo") == "exact"
    assert service_for(table, "b.other", "/foo/x") == "prefix"
    assert service_for(table, "a.test", "/foo") == "host"
    assert service_for(table, "b.test", "/foo") == "wildcard"
    assert service_for(table, "c.b.test", "/foo/x") == "prefix"
    assert service_for(table, "test", "/foo/x") == "prefix"


def test_the_older_of_two_ingresses_keeps_a_path_and_the_younger_is_told() -> None:
    old = ingress("z-old", ("a.test", "/foo", "Prefix", "old"), created="2026-01-01T00:00:00Z")
    young = ingress("a-young", ("a.test", "/foo/", "Prefix", "young"), created="2026-01-02T00:00:00Z")
    for given in ([old, young], [young, old]):
        table = compile_routes(given)
        assert service_for(table, "a.test", "/foo") == "old"
        assert [(each.ingress.key, each.reason) for each in table.findings] == [(("ns", "a-young"), "Conflict")]
        assert "ns/z-old" in table.findings[0].message


@pytest.mark.proves("Ingress.spec.defaultBackend")
def test_a_default_backend_gets_what_no_rule_does_of_its_hosts_and_of_all() -> None:
    table = compile_routes(
        [
            ingress("hosts", ("a.test", "/x", "Prefix", "x"), **default("of-a")),
            ingress("all", created="2026-02-01T00:00:00Z", **default("of-all")),
            ingress("late", created="2026-03-01T00:00:00Z", **default("of-none")),
        ]
    )
    assert service_for(table, "a.test", "/x") == "x"
    assert service_for(table, "a.test", "/y") == "of-a"
    assert service_for(table, "b.test", "/y") == "of-all"
    assert [each.ingress.key[1] for each in table.findings] == ["late"]


def test_a_resource_backend_is_told_and_serves_nothing() -> None:
    resource = {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x"}}
    obj = {
        "metadata": {"namespace": "ns", "name": "i"},
        "spec": {"defaultBackend": resource, "rules": [{"http": {"paths": [{"path": "/r", "backend": resource}]}}]},
    }
    table = compile_routes([parse_ingress(obj)])
    assert [each.reason for each in table.findings] == ["BackendNotSupported"]
    assert table.targets() == set()


SITE = Site(File("/d"), 80, 443)


def plan(table: Table, **servers: frozenset[tuple[str, int]]) -> Plan:
    pools = {
        target: Pool(target.service[1], "", servers.get(target.service[1], frozenset())) for target in table.targets()
    }
    return Plan(SITE, table, pools, {pool.name: 4 for pool in pools.values()})


def test_servers_are_in_the_configuration_but_not_in_its_fingerprint() -> None:
    table = compile_routes([ingress("i", ("a.test", "/ä b", "Prefix", "web"))])
    empty, full = (
        render_files(plan(table)),
        render_files(plan(table, web=frozenset({("10.0.0.1", 8080), ("fd00::1", 1)}))),
    )
    assert empty["prefix.map"] == b"a.test/%C3%A4%20b/ web\n"
    assert fingerprint(empty["haproxy.cfg"]) == fingerprint(full["haproxy.cfg"]) != ""
    assert b"server s1 10.0.0.1:8080\n" in full["haproxy.cfg"]
    assert b"server s2 [fd00::1]:1\n" in full["haproxy.cfg"]
    assert ports_of(full["haproxy.cfg"]) == {80, 443}
    assert slots_of(full["haproxy.cfg"]) == {"web": 4}


def test_anything_but_servers_changes_the_fingerprint() -> None:
    table = compile_routes([ingress("i", ("a.test", "/", "Prefix", "web"))])
    other = compile_routes([ingress("i", ("a.test", "/", "Exact", "web"))])
    base = plan(table)
    pools = {target: Pool("web", "proto h2", frozenset()) for target in table.targets()}
    variants = [
        plan(other),
        Plan(SITE, table, base.pools, {"web": 8}),
        Plan(Site(File("/d"), 80, 0), table, base.pools, base.slots),
        Plan(SITE, table, pools, base.slots),
        Plan(SITE, table, base.pools, base.slots, {"c.pem": ["a.test"]}, {"c.pem": b"1"}),
        Plan(SITE, table, base.pools, base.slots, {"c.pem": ["a.test"]}, {"c.pem": b"2"}),
        Plan(SITE, table, base.pools, base.slots, {"c.pem": ["b.test"]}, {"c.pem": b"1"}),
    ]
    prints = {fingerprint(render_files(each)[config.CONFIG]) for each in (base, *variants)}
    assert len(prints) == len(variants) + 1


def test_a_pool_has_room_for_twice_its_servers() -> None:
    assert [room_for(count) for count in (0, 1, 2, 3, 4, 5, 100)] == [4, 4, 4, 8, 8, 16, 256]


def test_a_redirect_is_part_of_the_route() -> None:
    plain = ingress("i", ("a.test", "/", "Prefix", "web"))
    target = Target(("ns", "web"), 80, redirects=True)
    table = Table({}, {("a.test", "/"): target}, {}, ())
    assert render_files(plan(table))["prefix.map"] == b"a.test/ web|r\n"
    assert render_files(plan(compile_routes([plain])))["prefix.map"] == b"a.test/ web\n"
