"""What `kubectl get` shows of every kind: column headings and one row's cells.

Called by the server (Table output), which kubectl prints as it is, and by the CLI. Pure; imports only `api`. Invariant:
for every kind `cells` gives exactly one value a column of `columns_of`; a field that is missing never raises.
The rules are those of k8s.io/kubernetes/pkg/printers/internalversion.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api.columns_services import SERVICE_PRINTERS
from api.columns_workloads import WORKLOAD_PRINTERS
from api.kinds import Kind
from api.pod_summary import summarize_pod
from api.printing import (
    AGE,
    CREATED,
    NAME,
    NONE,
    TEMPLATE_COLUMNS,
    UNKNOWN,
    Column,
    Printer,
    View,
    age_of,
    human_duration,
    joined,
    meta_of,
    name_and_age,
    name_of,
    selector_text,
    since,
    spec_of,
    status_of,
    template_of,
    wide,
)
from api.schema.custom.type import custom_of

_ADMISSION = "admissionregistration.k8s.io"
_UNSET = "<unset>"
_ROLE_LABEL = "node-role.kubernetes.io/"

_BINDING_COLUMNS = (
    NAME,
    Column("Role", "The role that is granted."),
    AGE,
    wide("Users", "Users it is granted to."),
    wide("Groups", "Groups it is granted to."),
    wide("ServiceAccounts", "Service accounts it is granted to."),
)
_POD_COLUMNS = (
    NAME,
    Column("Ready", "Containers that are ready, of all."),
    Column("Status", "What the pod's containers are doing, in a word."),
    Column("Restarts", "How often containers were restarted, and how long ago the last time."),
    AGE,
    wide("IP", "The pod's address."),
    wide("Node", "The node it is bound to."),
    wide("Nominated Node", "The node it preempts others on."),
    wide("Readiness Gates", "Readiness gates that are true, of all."),
)
_NODE_COLUMNS = (
    NAME,
    Column("Status", "Whether the node is ready, and whether it takes new pods."),
    Column("Roles", "Roles given by labels."),
    AGE,
    Column("Version", "Version of the node's agent."),
    wide("Internal-IP", "Address inside the cluster."),
    wide("External-IP", "Address outside the cluster."),
    wide("OS-Image", "The operating system."),
    wide("Kernel-Version", "The kernel."),
    wide("Container-Runtime", "The container runtime."),
)
_EVENT_COLUMNS = (
    Column("Last Seen", "When it was last seen."),
    Column("Type", "Normal or Warning."),
    Column("Reason", "Why, in a word."),
    Column("Object", "What it is about."),
    wide("Subobject", "The part of the object it is about."),
    wide("Source", "Who reports it."),
    Column("Message", "What happened."),
    wide("First Seen", "When it was first seen."),
    wide("Count", "How often it happened."),
    Column("Name", "The event's name.", format="name", priority=1),
)


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The headings for a kind; kinds without a printer of their own show name and creation time."""
    if (schema := custom_of(kind)) is not None:
        return schema.headings()
    printer = _PRINTERS.get((kind.group, kind.kind))
    return printer[0] if printer else (NAME, CREATED)


def cells(kind: Kind, obj: View, now: datetime) -> list[Any]:
    """One row: values in the order of `columns_of`. `now` is what ages are counted to."""
    if (schema := custom_of(kind)) is not None:
        return schema.cells(obj, now)
    printer = _PRINTERS.get((kind.group, kind.kind))
    if printer is None:
        return [name_of(obj), meta_of(obj).get("creationTimestamp")]
    return printer[1](obj, now)


def _config_map(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age_of(obj, now)]


def _secret(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), obj.get("type") or "", len(obj.get("data") or ()), age_of(obj, now)]


def _namespace(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), status_of(obj).get("phase") or "", age_of(obj, now)]


def _lease(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), spec_of(obj).get("holderIdentity") or "", age_of(obj, now)]


def _deployment(obj: View, now: datetime) -> list[Any]:
    status, desired = status_of(obj), spec_of(obj).get("replicas") or 0
    ready = f"{status.get('readyReplicas') or 0}/{desired}"
    counts = [status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0]
    return [name_of(obj), ready, *counts, age_of(obj, now), *template_of(obj)]


def _role_binding(obj: View, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name") or ""
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace') or ''}/{name}"
        by_kind.setdefault(subject.get("kind") or "", []).append(name)
    subjects = [", ".join(by_kind[key]) for key in ("User", "Group", "ServiceAccount")]
    return [name_of(obj), f"{role.get('kind') or ''}/{role.get('name') or ''}", age_of(obj, now), *subjects]


def _node(obj: View, now: datetime) -> list[Any]:
    status = status_of(obj)
    info = status.get("nodeInfo") or {}
    shown = [info.get(field) or UNKNOWN for field in ("osImage", "kernelVersion", "containerRuntimeVersion")]
    return [
        name_of(obj),
        _node_status(obj),
        _node_roles(obj),
        age_of(obj, now),
        info.get("kubeletVersion") or "",
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        *shown,
    ]


def _node_status(obj: View) -> str:
    ready = [c for c in status_of(obj).get("conditions") or () if c.get("type") == "Ready"]
    words = [("Ready" if ready[0].get("status") == "True" else "NotReady") if ready else "Unknown"]
    if spec_of(obj).get("unschedulable"):
        words.append("SchedulingDisabled")
    return joined(words)


def _node_roles(obj: View) -> str:
    labels = meta_of(obj).get("labels") or {}
    roles = {label[len(_ROLE_LABEL) :] for label in labels if label.startswith(_ROLE_LABEL)}
    roles |= {value for label, value in labels.items() if label == "kubernetes.io/role" and value}
    return joined(sorted(role for role in roles if role)) or NONE


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
        name_of(obj),
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
    spec, status = spec_of(obj), status_of(obj)
    addresses = status.get("podIPs") or ()
    return [
        name_of(obj),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        age_of(obj, now),
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


_DEPLOYMENT_COLUMNS = (
    NAME,
    Column("Ready", "Pods that are ready, of those there shall be."),
    Column("Up-to-date", "Pods made from the newest template."),
    Column("Available", "Pods that were ready for long enough."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def _webhooks(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), len(obj.get("webhooks") or ()), age_of(obj, now)]


def _policy(obj: View, now: datetime) -> list[Any]:
    spec, kind = spec_of(obj), spec_of(obj).get("paramKind")
    shown = _UNSET if kind is None else f"{kind.get('apiVersion') or ''}/{kind.get('kind') or ''}"
    return [name_of(obj), len(spec.get("validations") or ()), shown, age_of(obj, now)]


def _policy_binding(obj: View, now: datetime) -> list[Any]:
    spec, found, shown = spec_of(obj), spec_of(obj).get("paramRef") or {}, _UNSET
    if found.get("name"):
        shown = f"{found.get('namespace') or '*'}/{found['name']}"
    elif found.get("selector") is not None:
        shown = selector_text(found["selector"])
    return [name_of(obj), spec.get("policyName") or "", shown, age_of(obj, now)]


def _signing_request(obj: View, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    settled = [each.get("type") or "" for each in status.get("conditions") or ()]
    words = [word for word in ("Approved", "Denied", "Failed") if word in settled] or ["Pending"]
    seconds = spec.get("expirationSeconds")
    return [
        name_of(obj),
        age_of(obj, now),
        spec.get("signerName") or NONE,
        spec.get("username") or "",
        human_duration(seconds) if seconds else NONE,
        ",".join([*words, *(["Issued"] if status.get("certificate") else [])]),
    ]


_SIGNING_COLUMNS = (
    NAME,
    AGE,
    Column("SignerName", "Who is asked to sign."),
    Column("Requestor", "Who asks."),
    Column("RequestedDuration", "How long the certificate shall last."),
    Column("Condition", "What was decided, and whether a certificate was issued."),
)
_HOOKS: Printer = ((NAME, Column("Webhooks", "How many are asked.", type="integer"), AGE), _webhooks)
_POLICY_COLUMNS = (
    NAME,
    Column("Validations", "How many expressions must hold.", type="integer"),
    Column("ParamKind", "The kind of its parameters."),
    AGE,
)
_POLICY_BINDING_COLUMNS = (
    NAME,
    Column("PolicyName", "The policy it puts in force."),
    Column("ParamRef", "Its parameters."),
    AGE,
)
_DATA = Column("Data", "How many entries it holds.")
_PRINTERS: dict[tuple[str, str], Printer] = {
    **WORKLOAD_PRINTERS,
    **SERVICE_PRINTERS,
    ("", "Pod"): (_POD_COLUMNS, _pod),
    ("", "Node"): (_NODE_COLUMNS, _node),
    ("", "ConfigMap"): ((NAME, _DATA, AGE), _config_map),
    ("", "Secret"): ((NAME, Column("Type", "What kind of secret it is."), _DATA, AGE), _secret),
    ("", "Namespace"): ((NAME, Column("Status", "Active or Terminating."), AGE), _namespace),
    ("", "ServiceAccount"): ((NAME, AGE), name_and_age),
    ("", "Event"): (_EVENT_COLUMNS, _event),
    ("events.k8s.io", "Event"): (_EVENT_COLUMNS, _event_v1),
    ("coordination.k8s.io", "Lease"): ((NAME, Column("Holder", "Who holds the lease."), AGE), _lease),
    ("apps", "Deployment"): (_DEPLOYMENT_COLUMNS, _deployment),
    ("certificates.k8s.io", "CertificateSigningRequest"): (_SIGNING_COLUMNS, _signing_request),
    ("node.k8s.io", "RuntimeClass"): (
        (NAME, Column("Handler", "The runtime's configuration on a node."), AGE),
        lambda obj, now: [name_of(obj), obj.get("handler") or "", age_of(obj, now)],
    ),
    (_ADMISSION, "MutatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): (_POLICY_COLUMNS, _policy),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): (_POLICY_BINDING_COLUMNS, _policy_binding),
    ("rbac.authorization.k8s.io", "RoleBinding"): (_BINDING_COLUMNS, _role_binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (_BINDING_COLUMNS, _role_binding),
}
