"""Which request goes to which Service: all Ingresses put together into one table, and what in them cannot be served.

Called by the part at every change. Pure. A request is decided in this order; `config` makes HAProxy do the same:
1. rules for its very host, then for its wildcard (`*.` and all but the first label), then those without a host;
   within each an Exact path that is the request's path, else the longest Prefix of whole path elements;
2. the default backend of an Ingress that has a rule for its host, in the same order of hosts;
3. the default backend for all: of the oldest Ingress that has one and no rules, else of the oldest that has one;
4. none: 404.
Two Ingresses that want the same host and path: the older one has it.
Source: kubernetes.io/docs/concepts/services-networking/ingress (path types, multiple matches, hostname wildcards).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.network.ingress.model import Backend, Ingress, Path
from agent.network.model import Key

ANY_HOST = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `redirects`: not in plain HTTP."""

    service: Key
    port: int | str
    redirects: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What its owner has to know about an Ingress."""

    ingress: Ingress
    reason: str
    message: str


@dataclass(frozen=True)
class Table:
    """`exact` and `prefix` by host and path, prefixes ending in "/". `defaults` by host, ANY_HOST's for all."""

    exact: dict[tuple[str, str], Target]
    prefix: dict[tuple[str, str], Target]
    defaults: dict[str, Target]
    findings: tuple[Finding, ...]

    def targets(self) -> set[Target]:
        return {*self.exact.values(), *self.prefix.values(), *self.defaults.values()}


def compile_routes(ingresses: Iterable[Ingress]) -> Table:
    """The table of these Ingresses, whatever their order."""
    builder = _Builder()
    ordered = sorted(ingresses, key=lambda ingress: ingress.age)
    for ingress in ordered:
        builder.add(ingress)
    builder.add_catch_all(ordered)
    return Table(builder.exact, builder.prefix, builder.defaults, tuple(builder.findings))


class _Builder:
    def __init__(self) -> None:
        self.exact: dict[tuple[str, str], Target] = {}
        self.prefix: dict[tuple[str, str], Target] = {}
        self.defaults: dict[str, Target] = {}
        self.findings: list[Finding] = []
        self._owners: dict[tuple[bool, str, str], Ingress] = {}

    def add(self, ingress: Ingress) -> None:
        for rule in ingress.rules:
            for path in rule.paths:
                self._add_path(ingress, rule.host, path)
        default = self._target(ingress, ingress.default)
        if default is not None:
            for host in {rule.host for rule in ingress.rules} - {ANY_HOST}:
                self.defaults.setdefault(host, default)

    def _add_path(self, ingress: Ingress, host: str, path: Path) -> None:
        target = self._target(ingress, path.backend)
        if target is None:
            return
        text = path.path if path.exact else path.path.rstrip("/") + "/"
        owner = self._owners.setdefault((path.exact, host, text), ingress)
        routes = self.exact if path.exact else self.prefix
        if (host, text) not in routes:
            routes[host, text] = target
        elif routes[host, text] != target:
            where = f"{host or 'any host'}{path.path} ({'Exact' if path.exact else 'Prefix'})"
            who = "this Ingress itself" if owner is ingress else f"the older Ingress {'/'.join(owner.key)}"
            self.findings.append(Finding(ingress, "Conflict", f"{where} is taken already by {who}"))

    def add_catch_all(self, ordered: list[Ingress]) -> None:
        candidates = [each for each in ordered if each.default is not None and each.default.service]
        candidates.sort(key=lambda ingress: bool(ingress.rules))
        if candidates:
            target = self._target(candidates[0], candidates[0].default)
            assert target is not None
            self.defaults[ANY_HOST] = target
        for late in candidates[1:]:
            if not late.rules:
                message = f"the older Ingress {'/'.join(candidates[0].key)} has the default backend for all hosts"
                self.findings.append(Finding(late, "Conflict", message))

    def _target(self, ingress: Ingress, backend: Backend | None) -> Target | None:
        if backend is None:
            return None
        if not backend.service:
            message = "a backend that is a resource is not supported; name a Service"
            if not any(each.ingress is ingress and each.message == message for each in self.findings):
                self.findings.append(Finding(ingress, "BackendNotSupported", message))
            return None
        return Target((ingress.key[0], backend.service), backend.port, ingress.redirects)
