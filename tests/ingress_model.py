"""The reference for routing: slow, and written from Kubernetes' page on Ingress rather than from HAProxy's maps."""

from __future__ import annotations

from agent.network.ingress.routes import Table, Target


def choose(table: Table, host: str, path: str) -> Target | None:
    """Where a request goes; None: 404."""
    host = host.lower().rstrip(".")
    hosts = [host]
    if "." in host and not host.startswith("."):
        hosts.append("*." + host.split(".", 1)[1])
    for name in (*hosts, ""):
        found = _by_path(table, name, path)
        if found is not None:
            return found
    return next((table.defaults[name] for name in (*hosts, "") if name in table.defaults), None)


def _by_path(table: Table, host: str, path: str) -> Target | None:
    if (host, path) in table.exact:
        return table.exact[host, path]
    wanted = _elements(path)
    best: tuple[int, Target] | None = None
    for (name, prefix), target in table.prefix.items():
        elements = _elements(prefix)
        if name == host and wanted[: len(elements)] == elements and (best is None or len(elements) > best[0]):
            best = (len(elements), target)
    return best[1] if best else None


def _elements(path: str) -> list[str]:
    return path.removesuffix("/").split("/")[1:]
