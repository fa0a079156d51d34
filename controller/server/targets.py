"""GET /wherry/v1/targets/nodes|pods: what Prometheus is to scrape, for its `http_sd_configs`.

Debian builds Prometheus without Kubernetes' service discovery, so the API server answers what that would find, under
the same meta labels: a configuration works with either. Called by app.py; who may list nodes (pods) may ask.
Invariant: the loop only takes the records; pods are read in a thread, and only those that ask to be scraped are parsed.
Rules: prometheus.io/docs/prometheus/latest/http_sd and .../configuration/configuration/#kubernetes_sd_config
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from api.errors import ServiceUnavailable
from api.objects import Object
from controller.admission.types import User
from controller.server.agents import address_of
from controller.server.authorization import Attributes
from controller.server.call import Services
from controller.server.reply import Reply
from controller.store.types import Record

TARGETS_PREFIX = "/wherry/v1/targets/"
SCRAPE = "prometheus.io/scrape"
READING_SECONDS = 10.0
_META = "__meta_kubernetes_"
_UNSAID = re.compile(r"[^a-zA-Z0-9_]")
_MARK = SCRAPE.encode()

Groups = Iterator[Object]
"""Target groups: {"targets": [HOST:PORT], "labels": {NAME: TEXT}}."""


async def answer_targets(services: Services, user: User, path: str) -> Reply | None:
    """The target groups of a role; None for an unknown role. Raises Forbidden."""
    role = path.removeprefix(TARGETS_PREFIX)
    if role not in ("nodes", "pods"):
        return None
    services.authorizer.require(Attributes(user, "list", resource=role))
    records = services.store.list(("", role)).records
    groups = node_groups if role == "nodes" else pod_groups
    async with asyncio.timeout(READING_SECONDS):
        body = await asyncio.to_thread(lambda: orjson.dumps(list(groups(records))))
    return Reply(200, body)


def node_groups(records: Iterable[Record]) -> Groups:
    """One group a node that reports an address: its agent."""
    for record in records:
        node = record.parse()
        try:
            host, port = address_of(node)
        except ServiceUnavailable:
            continue  # a node that no agent registered
        name = record.key.name
        addresses = {f"{_META}node_address_{_said(one['type'])}": one["address"] for one in node["status"]["addresses"]}
        labels = {"instance": name, f"{_META}node_name": name, **addresses, **_described("node", node)}
        yield {"targets": [_joined(host, port)], "labels": labels}


def pod_groups(records: Iterable[Record]) -> Groups:
    """One group for each declared port (or one, without port) of every running pod annotated to be scraped."""
    for record in records:
        if record.fields.get("status.phase") != "Running" or _MARK not in record.raw:
            continue
        pod = record.parse()
        annotations = pod["metadata"].get("annotations") or {}
        address = (pod.get("status") or {}).get("podIP")
        if annotations.get(SCRAPE) != "true" or not address:
            continue
        labels = _pod_labels(pod)
        ports = list(_ports(pod))
        for container, port in ports:
            own = {
                f"{_META}pod_container_name": container,
                f"{_META}pod_container_port_name": port.get("name") or "",
                f"{_META}pod_container_port_number": str(port["containerPort"]),
                f"{_META}pod_container_port_protocol": port.get("protocol") or "TCP",
            }
            yield {"targets": [_joined(address, port["containerPort"])], "labels": {**labels, **own}}
        if not ports:
            yield {"targets": [f"[{address}]" if ":" in address else address], "labels": labels}


def _ports(pod: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            yield container["name"], port


def _pod_labels(pod: Object) -> dict[str, str]:
    about, spec, status = pod["metadata"], pod["spec"], pod["status"]
    ready = next((c["status"] for c in status.get("conditions") or () if c.get("type") == "Ready"), "Unknown")
    owner: Mapping[str, str] = next((o for o in about.get("ownerReferences") or () if o.get("controller")), {})
    return {
        f"{_META}namespace": about["namespace"],
        f"{_META}pod_name": about["name"],
        f"{_META}pod_uid": about["uid"],
        f"{_META}pod_ip": status["podIP"],
        f"{_META}pod_host_ip": status.get("hostIP") or "",
        f"{_META}pod_node_name": spec.get("nodeName") or "",
        f"{_META}pod_phase": status["phase"],
        f"{_META}pod_ready": ready.lower(),
        f"{_META}pod_controller_kind": owner.get("kind", ""),
        f"{_META}pod_controller_name": owner.get("name", ""),
        **_described("pod", pod),
    }


def _described(role: str, obj: Object) -> dict[str, str]:
    """Labels and annotations as meta labels: label names have letters, digits and _ only."""
    found = {}
    for section, word in (("labels", "label"), ("annotations", "annotation")):
        for name, text in (obj["metadata"].get(section) or {}).items():
            found[f"{_META}{role}_{word}_{_said(name)}"] = text
            found[f"{_META}{role}_{word}present_{_said(name)}"] = "true"
    return found


def _said(name: str) -> str:
    return _UNSAID.sub("_", name)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
