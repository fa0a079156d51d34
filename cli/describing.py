"""One object as text for people: head, containers with their state, conditions, the rest as YAML, events last. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from api.objects import Object, annotations_of, labels_of
from cli.output import render_age, render_table, render_yaml

_HIDDEN_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration",)


def render_description(obj: Object, events: Iterable[Object], load: str = "") -> str:
    """`load` is what stands beside a node's own fields: its resources and pods."""
    sections = [_head(obj), load]
    if obj.get("kind") == "Pod":
        sections.append(_containers(obj))
    else:
        sections += [f"{part.capitalize()}:\n{_indented(render_yaml(obj[part]))}" for part in _bodies(obj)]
    sections += [_conditions(obj), _events(events)]
    return "\n".join(section for section in sections if section)


def _bodies(obj: Object) -> list[str]:
    return [part for part in ("spec", "data", "rules", "roleRef", "subjects") if obj.get(part)]


def _head(obj: Object) -> str:
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations = {k: v for k, v in annotations_of(obj).items() if k not in _HIDDEN_ANNOTATIONS}
    owners = [f"{o['kind']}/{o['name']}" for o in metadata.get("ownerReferences") or ()]
    facts = [
        ("Kind", obj.get("kind")),
        ("Name", metadata["name"]),
        ("Namespace", metadata.get("namespace")),
        ("Labels", ", ".join(f"{k}={v}" for k, v in sorted(labels_of(obj).items()))),
        ("Annotations", ", ".join(f"{k}={v}" for k, v in sorted(annotations.items()))),
        ("Age", render_age(metadata.get("creationTimestamp"))),
        ("Deleting since", metadata.get("deletionTimestamp")),
        ("Controlled by", ", ".join(owners)),
        ("Node", (obj.get("spec") or {}).get("nodeName")),
        ("Phase", status.get("phase")),
        ("Reason", status.get("reason")),
        ("Message", status.get("message")),
        ("Pod IP", status.get("podIP")),
    ]
    return "\n".join(f"{name + ':':<16}{value}" for name, value in facts if value)


def _containers(pod: Object) -> str:
    status = pod.get("status") or {}
    states = {s["name"]: s for s in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]}
    lines = ["Containers:"]
    for group in ("initContainers", "containers"):
        for container in pod["spec"].get(group) or ():
            lines += _container(container, states.get(container["name"], {}), is_init=group == "initContainers")
    return "\n".join(lines)


def _container(container: Object, status: Object, *, is_init: bool) -> list[str]:
    lines = [f"  {container['name']}{' (init)' if is_init else ''}", f"    Image:        {container.get('image')}"]
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    if command:
        lines.append(f"    Command:      {' '.join(command)}")
    lines.append(f"    State:        {_state(status.get('state') or {})}")
    if status.get("lastState"):
        lines.append(f"    Last state:   {_state(status['lastState'])}")
    lines.append(f"    Ready:        {status.get('ready', False)}, restarts {status.get('restartCount', 0)}")
    for port in container.get("ports") or ():
        published = f" on host port {port['hostPort']}" if port.get("hostPort") else ""
        lines.append(f"    Port:         {port['containerPort']}/{port.get('protocol', 'TCP')}{published}")
    return lines


def _state(state: Object) -> str:
    if "running" in state:
        return f"running since {state['running'].get('startedAt')}"
    if "terminated" in state:
        ended = state["terminated"]
        said = f": {ended['message'].strip()}" if ended.get("message") else ""
        return f"ended with code {ended.get('exitCode')} ({ended.get('reason', 'Unknown')}){said}"
    waiting = state.get("waiting") or {}
    said = f": {waiting['message']}" if waiting.get("message") else ""
    return f"waiting ({waiting.get('reason', 'not started')}){said}"


def _conditions(obj: Object) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    if not conditions:
        return ""
    rows = [(c["type"], c["status"], c.get("reason", ""), c.get("message", "")) for c in conditions]
    return "Conditions:\n" + _indented(render_table(("TYPE", "STATUS", "REASON", "MESSAGE"), rows))


def _events(events: Iterable[Object]) -> str:
    ordered = sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    if not ordered:
        return "Events: none"
    rows = [
        (
            event.get("type"),
            event.get("reason"),
            render_age(event.get("lastTimestamp") or event.get("eventTime")),
            _message(event),
        )
        for event in ordered
    ]
    return "Events:\n" + _indented(render_table(("TYPE", "REASON", "AGE", "MESSAGE"), rows))


def _message(event: Object) -> str:
    times = event.get("count") or 1
    return f"{event.get('message', '')} (x{times})" if times > 1 else str(event.get("message", ""))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
