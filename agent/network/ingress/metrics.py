"""HAProxy's own numbers under the agent's /metrics, with the names of HAProxy's exporter.

Registered by the part while it serves. Collected when somebody asks, off the event loop. Servers are summed up by
pool: their slots mean nothing to others. Source: docs.haproxy.org/2.6/management.html (show stat).
"""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent import counters
from agent.network.ingress.config import FRONTEND
from agent.network.ingress.proxy import Proxy

ASK_SECONDS = 2.0
_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")


class ProxyCollector(Collector):
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        counters.REGISTRY.register(self)

    def close(self) -> None:
        counters.REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("haproxy_up", "Whether the node's HAProxy answers")
        try:
            rows = read_statistics(self._proxy)
        except (OSError, TimeoutError):
            rows = []
        up.add_metric([], 1.0 if rows else 0.0)
        reloads = CounterMetricFamily("wherry_ingress_reloads", "Reloads of HAProxy since this agent started")
        reloads.add_metric([], self._proxy.reloads)
        return (up, reloads, *(families_of(rows) if rows else ()))


def families_of(rows: Iterable[dict[str, str]]) -> list[Metric]:
    """Metrics out of the rows of `show stat`."""
    text = "Responses by pool and class of status code"
    responses = CounterMetricFamily("haproxy_backend_http_responses", text, labels=["proxy", "code"])
    front = CounterMetricFamily("haproxy_frontend_http_responses", "Responses by class", labels=["proxy", "code"])
    sessions = GaugeMetricFamily("haproxy_frontend_current_sessions", "Open sessions", labels=["proxy"])
    servers = GaugeMetricFamily("haproxy_backend_active_servers", "Servers that get requests", labels=["proxy"])
    for row in rows:
        proxy, kind = row["# pxname"], row["svname"]
        if kind == "FRONTEND" and proxy == FRONTEND:
            sessions.add_metric([proxy], _number(row, "scur"))
            for code in _CODES:
                front.add_metric([proxy, code], _number(row, f"hrsp_{code}"))
        elif kind == "BACKEND" and not proxy.startswith("_"):
            servers.add_metric([proxy], _number(row, "act"))
            for code in _CODES:
                responses.add_metric([proxy, code], _number(row, f"hrsp_{code}"))
    return [front, sessions, responses, servers]


def _number(row: dict[str, str], column: str) -> float:
    return float(row.get(column) or 0)


def read_statistics(proxy: Proxy) -> list[dict[str, str]]:
    """Frontends and backends of the present worker. Blocks for at most 2 s; raises OSError, TimeoutError."""
    if not proxy.running:
        return []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
        talk.settimeout(ASK_SECONDS)
        talk.connect(str(proxy.socket))
        talk.sendall(b"@1 show stat -1 3 -1\n")
        talk.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: talk.recv(1 << 16), b"")).decode(errors="replace")
    return list(csv.DictReader(line for line in reply.splitlines() if line))
