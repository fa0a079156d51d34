"""What `kubectl get` shows of every kind: column headings and one row's cells.

Called by the server (Table output), which kubectl prints as it is, and by the CLI. Pure; imports only `api`. Invariant:
for every kind `cells` gives exactly one value a column of `columns_of`; a field that is missing never raises.
The rules are those of k8s.io/kubernetes/pkg/printers/internalversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.kinds import Kind
from api.objects import Object
from api.pod_summary import summarize_pod
from api.selectors import from_object

NONE = "<none>"
UNKNOWN = "<unknown>"
_ROLE_LABEL = "node-role.kubernetes.io/"
_YEAR_HOURS = 24 * 365

View = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One heading. Priority 1 columns show with `-o wide` only."""

    name: str
    description: str = ""
    type: str = "string"
    format: str = ""
    priority: int = 0

    def wire(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


_NAME = Column("Name", "The object's name, unique among its kind (and namespace).", format="name")
_AGE = Column("Age", "How long ago the object was created.")
_CREATED = Column("Created At", "When the object was created.", type="date")


def _wide(name: str, description: str) -> Column:
    return Column(name, description, priority=1)


_TEMPLATE_COLUMNS = (
    _wide("Containers", "Names of the containers of the template."),
    _wide("Images", "Images of the containers of the template."),
    _wide("Selector", "Labels a pod must have to be counted."),
)
_BINDING_COLUMNS = (
    _NAME,
    Column("Role", "The role that is granted."),
    _AGE,
    _wide("Users", "Users it is granted to."),
    _wide("Groups", "Groups it is granted to."),
    _wide("ServiceAccounts", "Service accounts it is granted to."),
)
_POD_COLUMNS = (
    _NAME,
    Column("Ready", "Containers that are ready, of all."),
    Column("Status", "What the pod's containers are doing, in a word."),
    Column("Restarts", "How often containers were restarted, and how long ago the last time."),
    _AGE,
    _wide("IP", "The pod's address."),
    _wide("Node", "The node it is bound to."),
    _wide("Nominated Node", "The node it preempts others on."),
    _wide("Readiness Gates", "Readiness gates that are true, of all."),
)
_NODE_COLUMNS = (
    _NAME,
    Column("Status", "Whether the node is ready, and whether it takes new pods."),
    Column("Roles", "Roles given by labels."),
    _AGE,
    Column("Version", "Version of the node's agent."),
    _wide("Internal-IP", "Address inside the cluster."),
    _wide("External-IP", "Address outside the cluster."),
    _wide("OS-Image", "The operating system."),
    _wide("Kernel-Version", "The kernel."),
    _wide("Container-Runtime", "The container runtime."),
)
_EVENT_COLUMNS = (
    Column("Last Seen", "When it was last seen."),
    Column("Type", "Normal or Warning."),
    Column("Reason", "Why, in a word."),
    Column("Object", "What it is about."),
    _wide("Subobject", "The part of the object it is about."),
    _wide("Source", "Who reports it."),
    Column("Message", "What happened."),
    _wide("First Seen", "When it was first seen."),
    _wide("Count", "How often it happened."),
    Column("Name", "The event's name.", format="name", priority=1),
)


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The headings for a kind; kinds without a printer of their own show name and creation time."""
    printer = _PRINTERS.get((kind.group, kind.kind))
    return printer[0] if printer else (_NAME, _CREATED)


def cells(kind: Kind, obj: View, now: datetime) -> list[Any]:
    """One row: values in the order of `columns_of`. `now` is what ages are counted to."""
    printer = _PRINTERS.get((kind.group, kind.kind))
    if printer is None:
        return [_name(obj), _meta(obj).get("creationTimestamp")]
    return printer[1](obj, now)


def human_duration(seconds: float) -> str:
    """Two or three significant figures: `42s`, `5m3s`, `3h12m`, `7d4h`, `2y35d` (k8s.io/apimachinery duration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < _YEAR_HOURS * 2:
        return f"{hours // 24}d"
    if hours < _YEAR_HOURS * 8:
        return _two(hours // _YEAR_HOURS, "y", hours // 24 % 365, "d")
    return f"{hours // _YEAR_HOURS}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def since(text: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was; `<unknown>` for none."""
    if not text:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return UNKNOWN
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration((now - moment).total_seconds())


def _meta(obj: View) -> View:
    return obj.get("metadata") or {}


def _spec(obj: View) -> View:
    return obj.get("spec") or {}


def _status(obj: View) -> View:
    return obj.get("status") or {}


def _name(obj: View) -> str:
    return _meta(obj).get("name") or ""


def _age(obj: View, now: datetime) -> str:
    return since(_meta(obj).get("creationTimestamp"), now)


def _name_and_age(obj: View, now: datetime) -> list[Any]:
    return [_name(obj), _age(obj, now)]


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)


def _template(obj: View) -> list[Any]:
    """Containers, images and selector of a workload."""
    containers = _spec(_spec(obj).get("template") or {}).get("containers") or ()
    return [
        _joined(container.get("name") or "" for container in containers),
        _joined(container.get("image") or "" for container in containers),
        _selector(_spec(obj).get("selector")),
    ]


def _selector(wire: Any) -> str:
    try:
        return str(from_object(wire)) or NONE
    except (ValueError, AttributeError):
        return "<error>"


def _config_map(obj: View, now: datetime) -> list[Any]:
    return [_name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), _age(obj, now)]


def _secret(obj: View, now: datetime) -> list[Any]:
    return [_name(obj), obj.get("type") or "", len(obj.get("data") or ()), _age(obj, now)]


def _namespace(obj: View, now: datetime) -> list[Any]:
    return [_name(obj), _status(obj).get("phase") or "", _age(obj, now)]


def _lease(obj: View, now: datetime) -> list[Any]:
    return [_name(obj), _spec(obj).get("holderIdentity") or "", _age(obj, now)]


def _deployment(obj: View, now: datetime) -> list[Any]:
    status, desired = _status(obj), _spec(obj).get("replicas") or 0
    ready = f"{status.get('readyReplicas') or 0}/{desired}"
    counts = [status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0]
    return [_name(obj), ready, *counts, _age(obj, now), *_template(obj)]


def _replica_set(obj: View, now: datetime) -> list[Any]:
    status = _status(obj)
    counts = [_spec(obj).get("replicas") or 0, status.get("replicas") or 0, status.get("readyReplicas") or 0]
    return [_name(obj), *counts, _age(obj, now), *_template(obj)]


def _role_binding(obj: View, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name") or ""
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace') or ''}/{name}"
        by_kind.setdefault(subject.get("kind") or "", []).append(name)
    subjects = [", ".join(by_kind[key]) for key in ("User", "Group", "ServiceAccount")]
    return [_name(obj), f"{role.get('kind') or ''}/{role.get('name') or ''}", _age(obj, now), *subjects]


def _node(obj: View, now: datetime) -> list[Any]:
    status = _status(obj)
    info = status.get("nodeInfo") or {}
    shown = [info.get(field) or UNKNOWN for field in ("osImage", "kernelVersion", "containerRuntimeVersion")]
    return [
        _name(obj),
        _node_status(obj),
        _node_roles(obj),
        _age(obj, now),
        info.get("kubeletVersion") or "",
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        *shown,
    ]


def _node_status(obj: View) -> str:
    ready = [c for c in _status(obj).get("conditions") or () if c.get("type") == "Ready"]
    words = [("Ready" if ready[0].get("status") == "True" else "NotReady") if ready else "Unknown"]
    if _spec(obj).get("unschedulable"):
        words.append("SchedulingDisabled")
    return _joined(words)


def _node_roles(obj: View) -> str:
    labels = _meta(obj).get("labels") or {}
    roles = {label[len(_ROLE_LABEL) :] for label in labels if label.startswith(_ROLE_LABEL)}
    roles |= {value for label, value in labels.items() if label == "kubernetes.io/role" and value}
    return _joined(sorted(role for role in roles if role)) or NONE


def _address(status: View, wanted: str) -> str:
    for address in status.get("addresses") or ():
        if address.get("type") == wanted:
            return str(address.get("address") or NONE)
    return NONE


def _event_v1(obj: View, now: datetime) -> list[Any]:
    """events.k8s.io: the same event under its other field names."""
    core = {
        **obj,
        "involvedObject": obj.get("regarding"),
        "message": obj.get("note"),
        "source": obj.get("deprecatedSource"),
        "firstTimestamp": obj.get("deprecatedFirstTimestamp"),
        "lastTimestamp": obj.get("deprecatedLastTimestamp"),
        "count": obj.get("deprecatedCount"),
        "reportingComponent": obj.get("reportingController"),
    }
    return _event(core, now)


def _event(obj: View, now: datetime) -> list[Any]:
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = since(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    about = obj.get("involvedObject") or {}
    target = (about.get("kind") or "").lower()
    if about.get("name"):
        target += f"/{about['name']}"
    return [
        last,
        obj.get("type") or "",
        obj.get("reason") or "",
        target,
        about.get("fieldPath") or "",
        _event_source(obj),
        (obj.get("message") or "").strip(),
        first,
        count,
        _name(obj),
    ]


def _event_source(obj: View) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else str(component)


def _pod(obj: View, now: datetime) -> list[Any]:
    summary = summarize_pod(obj)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({since(summary.last_restart, now)} ago)"
    spec, status = _spec(obj), _status(obj)
    addresses = status.get("podIPs") or ()
    return [
        _name(obj),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        _age(obj, now),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(spec, status),
    ]


def _readiness_gates(spec: View, status: View) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return NONE
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    return f"{sum(gate.get('conditionType') in true for gate in gates)}/{len(gates)}"


Printer = tuple[tuple[Column, ...], Callable[[View, datetime], list[Any]]]

_REPLICA_SET_COLUMNS = (
    _NAME,
    Column("Desired", "Pods there shall be.", type="integer"),
    Column("Current", "Pods there are.", type="integer"),
    Column("Ready", "Pods that are ready.", type="integer"),
    _AGE,
    *_TEMPLATE_COLUMNS,
)
_DEPLOYMENT_COLUMNS = (
    _NAME,
    Column("Ready", "Pods that are ready, of those there shall be."),
    Column("Up-to-date", "Pods made from the newest template."),
    Column("Available", "Pods that were ready for long enough."),
    _AGE,
    *_TEMPLATE_COLUMNS,
)
_DATA = Column("Data", "How many entries it holds.")
_PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "Pod"): (_POD_COLUMNS, _pod),
    ("", "Node"): (_NODE_COLUMNS, _node),
    ("", "ConfigMap"): ((_NAME, _DATA, _AGE), _config_map),
    ("", "Secret"): ((_NAME, Column("Type", "What kind of secret it is."), _DATA, _AGE), _secret),
    ("", "Namespace"): ((_NAME, Column("Status", "Active or Terminating."), _AGE), _namespace),
    ("", "ServiceAccount"): ((_NAME, _AGE), _name_and_age),
    ("", "Event"): (_EVENT_COLUMNS, _event),
    ("events.k8s.io", "Event"): (_EVENT_COLUMNS, _event_v1),
    ("coordination.k8s.io", "Lease"): ((_NAME, Column("Holder", "Who holds the lease."), _AGE), _lease),
    ("apps", "Deployment"): (_DEPLOYMENT_COLUMNS, _deployment),
    ("apps", "ReplicaSet"): (_REPLICA_SET_COLUMNS, _replica_set),
    ("rbac.authorization.k8s.io", "RoleBinding"): (_BINDING_COLUMNS, _role_binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (_BINDING_COLUMNS, _role_binding),
}
