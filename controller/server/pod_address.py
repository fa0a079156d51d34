"""The shape PodAddress of a pod: where it is and what policies and names match it by, and nothing else.

Asked for as `Accept: application/json;as=PodAddress;v=v1;g=wherry` on pods; called by shapes.py and watch.py. Agents
follow all pods of the cluster in this shape only, so what stands in it is what a stolen agent certificate can read of
other nodes' pods: no commands, no environment, no annotations. Invariant: fields are copied by name, never left out
by name, so that a field new to Kubernetes stays hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from api.objects import Object
from controller.store.types import ENCODED, Event, EventType

_METADATA = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp", "labels")
_SPEC = ("nodeName", "hostNetwork")
_STATUS = ("phase", "podIP", "podIPs", "hostIPs")
_PORT = ("name", "protocol", "containerPort")
LINES = "PodAddress"
"""Under which name an event keeps its line in this shape, made once for all watchers."""


def pod_address(pod: Mapping[str, Any]) -> Object:
    """The shape, as an object of its own kind."""
    spec = pod.get("spec") or {}
    shown = _picked(spec, _SPEC)
    for section in ("initContainers", "containers"):
        containers = spec.get(section) or ()
        named = [[_picked(port, _PORT) for port in each.get("ports") or () if port.get("name")] for each in containers]
        if any(named):
            shown[section] = [{"ports": ports} for ports in named if ports]
    return {
        "kind": "PodAddress",
        "apiVersion": "wherry/v1",
        "metadata": _picked(pod.get("metadata") or {}, _METADATA),
        "spec": shown,
        "status": _picked(pod.get("status") or {}, _STATUS),
    }


def address_lines(events: Iterable[Event]) -> Iterator[bytes]:
    """Watch lines; a modification that changes nothing of the shape (most do: conditions, probes) has none."""
    for event in events:
        if LINES not in event.forms:
            line = event.forms[LINES] = _line(event)
            ENCODED.keep(event, len(line))
        else:
            line = event.forms[LINES]
        if line:
            yield line


def _line(event: Event) -> bytes:
    shown = pod_address(event.record.parse())
    if event.type is EventType.MODIFIED and event.previous is not None:
        before = pod_address(event.previous.parse())
        before["metadata"]["resourceVersion"] = shown["metadata"].get("resourceVersion")
        if before == shown:
            return b""
    return b'{"type":"' + event.type.encode() + b'","object":' + orjson.dumps(shown) + b"}\n"


def _picked(source: Mapping[str, Any], names: tuple[str, ...]) -> Object:
    return {name: source[name] for name in names if source.get(name) not in (None, "", False, {}, [])}
