"""metrics.k8s.io: what nodes and pods use, asked of their agents when somebody wants to know (`kubectl top`).

Called by app.py through routes. Nothing is stored: every agent is asked at once, for its kubelet-like summary; one that
has not been asked for a while has no rates yet and is asked again after a moment. Invariant: an agent that does not
answer is left out, as in Kubernetes' metrics-server. Format: k8s.io/metrics/pkg/apis/metrics/v1beta1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import orjson

from api.errors import ApiError, not_found
from api.objects import Object
from api.selectors import FieldSelector, LabelSelector
from controller.server.call import Call, Services
from controller.server.options import list_options
from controller.server.reply import Answer, reply_object
from controller.store import Query
from controller.store.types import Key, Record

ASK_SECONDS = 5.0
AGAIN_SECONDS = 2.1
"""An agent keeps a measurement for two seconds; a rate needs two."""
WINDOW = "10s"

Summary = Mapping[str, Any]


async def usage_of_nodes(services: Services, call: Call) -> Answer:
    """GET nodes, nodes/NAME. Raises NotFound."""
    wanted = _selected(services, call, ("", "nodes"), "")
    summaries = await _summaries(services, (record.key.name for record in wanted))
    items = [
        _node(record, summaries[record.key.name])
        for record in wanted
        if record.key.name in summaries and _has_rate(summaries[record.key.name].get("node") or {})
    ]
    return _answer(call, items)


async def usage_of_pods(services: Services, call: Call) -> Answer:
    """GET pods, namespaces/NS/pods, namespaces/NS/pods/NAME. Raises NotFound."""
    wanted = [
        record
        for record in _selected(services, call, ("", "pods"), call.namespace)
        if record.fields.get("status.phase") == "Running"
    ]
    summaries = await _summaries(services, {record.fields.get("spec.nodeName", "") for record in wanted})
    by_uid = {
        (pod.get("podRef") or {}).get("uid"): pod for summary in summaries.values() for pod in summary.get("pods") or ()
    }
    items = []
    for record in wanted:
        found = by_uid.get(record.parse()["metadata"]["uid"])
        if found is not None and all(_has_rate(each) for each in found.get("containers") or ()):
            items.append(_pod(record, found))
    return _answer(call, items)


def _selected(services: Services, call: Call, resource: tuple[str, str], namespace: str) -> list[Record]:
    if call.target.name:
        record = services.store.get(Key(*resource, namespace, call.target.name))
        return [record] if record is not None else []
    options = list_options(call.params, call.kind)
    labels: LabelSelector | None = options.labels
    fields: FieldSelector | None = options.fields
    return services.store.list(resource, Query(namespace, labels, fields)).records


async def _summaries(services: Services, nodes: Iterable[str]) -> dict[str, Summary]:
    names = sorted({name for name in nodes if name})
    first = await _ask_all(services, names)
    cold = [name for name, summary in first.items() if not _has_rate(summary.get("node") or {})]
    if cold:
        await asyncio.sleep(AGAIN_SECONDS)
        first |= await _ask_all(services, cold)
    return first


async def _ask_all(services: Services, names: Iterable[str]) -> dict[str, Summary]:
    listed = list(names)
    answers = await asyncio.gather(*(_ask(services, name) for name in listed))
    return {name: answer for name, answer in zip(listed, answers, strict=True) if answer is not None}


async def _ask(services: Services, node: str) -> Summary | None:
    """A node's summary; None when its agent does not answer."""
    try:
        backend = services.agents.backend_of(node)
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        tls: Any = backend.tls if backend.tls is not None else False
        url = f"{backend.url}/stats/summary"
        async with services.agents.session.get(
            url, ssl=tls, server_hostname=backend.server_name or None, timeout=timeout
        ) as answer:
            parsed = orjson.loads(await answer.read()) if answer.status == 200 else None
    except (ApiError, aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _has_rate(measured: Summary) -> bool:
    return "usageNanoCores" in (measured.get("cpu") or {})


def _usage(measured: Summary) -> Object:
    kibibytes = int((measured.get("memory") or {}).get("workingSetBytes") or 0) >> 10
    return {"cpu": f"{measured['cpu']['usageNanoCores']}n", "memory": f"{kibibytes}Ki"}


def _node(record: Record, summary: Summary) -> Object:
    node = summary["node"]
    return {**_head(record, "NodeMetrics", node["cpu"]["time"]), "usage": _usage(node)}


def _pod(record: Record, pod: Summary) -> Object:
    containers = pod.get("containers") or []
    at = max((each["cpu"]["time"] for each in containers), default="")
    used = [{"name": each["name"], "usage": _usage(each)} for each in containers]
    return {**_head(record, "PodMetrics", at), "containers": used}


def _head(record: Record, kind: str, at: str) -> Object:
    metadata: Object = {"name": record.key.name, "creationTimestamp": at}
    if record.key.namespace:
        metadata["namespace"] = record.key.namespace
    if record.labels:
        metadata["labels"] = dict(record.labels)
    return {
        "kind": kind,
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata,
        "timestamp": at,
        "window": WINDOW,
    }


def _answer(call: Call, items: list[Object]) -> Answer:
    if call.target.name:
        if not items:
            raise not_found(call.kind.group, call.kind.plural, call.target.name)
        return reply_object(items[0], form=call.form)
    bare = [{name: value for name, value in item.items() if name not in ("kind", "apiVersion")} for item in items]
    head = {"kind": f"{call.kind.kind}List", "apiVersion": call.kind.api_version, "metadata": {}}
    return reply_object({**head, "items": bare}, form=call.form)
