"""What `kubectl get` shows of StatefulSets, DaemonSets, Jobs, autoscalers and their like.

Read by `columns`. Pure. The rules are those of k8s.io/kubernetes/pkg/printers/internalversion.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from api.objects import parse_time
from api.printing import (
    AGE,
    NAME,
    NONE,
    TEMPLATE_COLUMNS,
    UNKNOWN,
    Column,
    Printer,
    View,
    age_of,
    human_duration,
    labels_text,
    meta_of,
    name_of,
    since,
    spec_of,
    status_of,
    template_of,
)

_SHOWN_METRICS = 2


def _count(name: str, description: str) -> Column:
    return Column(name, description, type="integer")


_CONTAINERS = TEMPLATE_COLUMNS[:2]
REPLICA_COLUMNS = (
    NAME,
    _count("Desired", "Pods there shall be."),
    _count("Current", "Pods there are."),
    _count("Ready", "Pods that are ready."),
    AGE,
    *TEMPLATE_COLUMNS,
)
_DAEMON_SET_COLUMNS = (
    *REPLICA_COLUMNS[:4],
    _count("Up-to-date", "Pods made from the newest template."),
    _count("Available", "Pods that were ready for long enough."),
    Column("Node Selector", "Labels of the nodes that get a pod."),
    AGE,
    *TEMPLATE_COLUMNS,
)
_JOB_COLUMNS = (
    NAME,
    Column("Status", "How far the job is, in a word."),
    Column("Completions", "Pods that succeeded, of those that have to."),
    Column("Duration", "How long it took, or takes so far."),
    AGE,
    *TEMPLATE_COLUMNS,
)
_CRON_JOB_COLUMNS = (
    NAME,
    Column("Schedule", "When it runs."),
    Column("Timezone", "Whose clock that is."),
    Column("Suspend", "Whether it is suspended.", type="boolean"),
    _count("Active", "Jobs that are running."),
    Column("Last Schedule", "When it last ran."),
    AGE,
    *TEMPLATE_COLUMNS,
)
_AUTOSCALER_COLUMNS = (
    NAME,
    Column("Reference", "What is scaled."),
    Column("Targets", "What is measured, as it is and as it should be."),
    Column("MinPods", "The fewest pods."),
    Column("MaxPods", "The most pods."),
    Column("Replicas", "Pods there are."),
    AGE,
)


def replicas(obj: View, now: datetime) -> list[Any]:
    """ReplicaSets and, with a plain map of labels as selector, ReplicationControllers."""
    status = status_of(obj)
    counts = [spec_of(obj).get("replicas") or 0, status.get("replicas") or 0, status.get("readyReplicas") or 0]
    return [name_of(obj), *counts, age_of(obj, now), *template_of(obj)]


def _controller(obj: View, now: datetime) -> list[Any]:
    return [*replicas(obj, now)[:-1], labels_text(spec_of(obj).get("selector"))]


def _stateful_set(obj: View, now: datetime) -> list[Any]:
    ready = f"{status_of(obj).get('readyReplicas') or 0}/{spec_of(obj).get('replicas') or 0}"
    return [name_of(obj), ready, age_of(obj, now), *template_of(obj)[:2]]


def _daemon_set(obj: View, now: datetime) -> list[Any]:
    status = status_of(obj)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    counts = [status.get(field) or 0 for field in (*fields, "numberAvailable")]
    nodes = labels_text(spec_of(spec_of(obj).get("template") or {}).get("nodeSelector"))
    return [name_of(obj), *counts, nodes, age_of(obj, now), *template_of(obj)]


def _job(obj: View, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    done, wanted, at_once = status.get("succeeded") or 0, spec.get("completions"), spec.get("parallelism") or 0
    completions = f"{done}/{wanted}" if wanted is not None else f"{done}/1" + (f" of {at_once}" if at_once > 1 else "")
    duration = ""
    if status.get("startTime"):
        end = parse_time(status["completionTime"]) if status.get("completionTime") else now
        duration = human_duration((end - parse_time(status["startTime"])).total_seconds())
    return [name_of(obj), _job_status(obj), completions, duration, age_of(obj, now), *template_of(obj)]


def _job_status(obj: View) -> str:
    true = {one.get("type") for one in status_of(obj).get("conditions") or () if one.get("status") == "True"}
    for condition in ("Complete", "Failed"):
        if condition in true:
            return condition
    if meta_of(obj).get("deletionTimestamp"):
        return "Terminating"
    return next((one for one in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if one in true), "Running")


def _cron_job(obj: View, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    suspended = spec.get("suspend")
    last = since(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE
    shown = [spec.get("schedule") or "", spec.get("timeZone") or NONE]
    shown += ["<unset>" if suspended is None else str(suspended), len(status.get("active") or ()), last]
    return [name_of(obj), *shown, age_of(obj, now), *template_of(spec.get("jobTemplate") or {})]


def _autoscaler(obj: View, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    percent, used = spec.get("targetCPUUtilizationPercentage"), status.get("currentCPUUtilizationPercentage")
    wanted, current = spec.get("metrics") or (), status.get("currentMetrics") or ()
    if percent is not None:  # autoscaling/v1: its one metric under other names
        wanted = [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": percent}}}]
        current = [{"resource": {"current": {"averageUtilization": used}}}]
    target = spec.get("scaleTargetRef") or {}
    least = spec.get("minReplicas")
    counts = ["<unset>" if least is None else str(least), spec.get("maxReplicas") or 0, status.get("currentReplicas")]
    reference = f"{target.get('kind') or ''}/{target.get('name') or ''}"
    return [name_of(obj), reference, _targets(wanted, current), *counts[:2], counts[2] or 0, age_of(obj, now)]


def _targets(wanted: Iterable[View], current: Iterable[View]) -> str:
    found = list(current)
    texts = [_target(metric, found[index] if index < len(found) else {}) for index, metric in enumerate(wanted)]
    more = f" + {len(texts) - _SHOWN_METRICS} more..." if len(texts) > _SHOWN_METRICS else ""
    return ", ".join(texts[:_SHOWN_METRICS]) + more if texts else NONE


def _target(metric: View, current: View) -> str:
    kind = metric.get("type") or ""
    source = metric.get(kind[:1].lower() + kind[1:]) or {}
    target, now = source.get("target") or {}, (current.get(kind[:1].lower() + kind[1:]) or {}).get("current") or {}
    if target.get("averageUtilization") is not None:
        used = now.get("averageUtilization")
        shown = UNKNOWN if used is None else f"{used}%"
        return f"{source.get('name') or ''}: {shown}/{target['averageUtilization']}%"
    field = "averageValue" if target.get("averageValue") else "value"
    prefix = f"{source['name']}: " if source.get("name") else ""
    average = " (avg)" if field == "averageValue" and kind in ("Object", "External") else ""
    return f"{prefix}{now.get(field) or UNKNOWN}/{target.get(field) or UNKNOWN}{average}"


def _revision(obj: View, now: datetime) -> list[Any]:
    owner = next((one for one in meta_of(obj).get("ownerReferences") or () if one.get("controller")), None)
    shown = NONE
    if owner is not None:
        group = str(owner.get("apiVersion") or "").rpartition("/")[0]
        kind = str(owner.get("kind") or "").lower()
        shown = f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"
    return [name_of(obj), shown, obj.get("revision") or 0, age_of(obj, now)]


def _pod_template(obj: View, now: datetime) -> list[Any]:
    del now
    template = obj.get("template") or {}
    return [
        name_of(obj),
        *template_of({"spec": {"template": template}})[:2],
        labels_text(meta_of(template).get("labels")),
    ]


def _budget(obj: View, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    bounds = ["N/A" if spec.get(field) is None else str(spec[field]) for field in ("minAvailable", "maxUnavailable")]
    return [name_of(obj), *bounds, status_of(obj).get("disruptionsAllowed") or 0, age_of(obj, now)]


def _quota(obj: View, now: datetime) -> list[Any]:
    status = status_of(obj)
    used = status.get("used") or {}
    hard = sorted((status.get("hard") or {}).items())
    requests = [f"{name}: {used.get(name, 0)}/{most}" for name, most in hard if not name.startswith("limits.")]
    limits = [f"{name}: {used.get(name, 0)}/{most}" for name, most in hard if name.startswith("limits.")]
    return [name_of(obj), ", ".join(requests), ", ".join(limits), age_of(obj, now)]


def _priority_class(obj: View, now: datetime) -> list[Any]:
    shown = [obj.get("value") or 0, bool(obj.get("globalDefault")), age_of(obj, now)]
    return [name_of(obj), *shown, obj.get("preemptionPolicy") or ""]


_POD_TEMPLATE_COLUMNS = (
    NAME,
    *(Column(one.name, one.description) for one in _CONTAINERS),
    Column("Pod Labels", "Labels of the pods."),
)
_OWNER = Column("Controller", "The object whose past state it is.")
WORKLOAD_PRINTERS: dict[tuple[str, str], Printer] = {
    ("apps", "ReplicaSet"): (REPLICA_COLUMNS, replicas),
    ("", "ReplicationController"): (REPLICA_COLUMNS, _controller),
    ("apps", "StatefulSet"): (
        (NAME, Column("Ready", "Pods that are ready, of those there shall be."), AGE, *_CONTAINERS),
        _stateful_set,
    ),
    ("apps", "DaemonSet"): (_DAEMON_SET_COLUMNS, _daemon_set),
    ("apps", "ControllerRevision"): ((NAME, _OWNER, Column("Revision", "Its number."), AGE), _revision),
    ("", "PodTemplate"): (_POD_TEMPLATE_COLUMNS, _pod_template),
    ("batch", "Job"): (_JOB_COLUMNS, _job),
    ("batch", "CronJob"): (_CRON_JOB_COLUMNS, _cron_job),
    ("autoscaling", "HorizontalPodAutoscaler"): (_AUTOSCALER_COLUMNS, _autoscaler),
    ("autoscaling", "Scale"): (
        (NAME, _count("Desired", "Pods there shall be."), _count("Available", "Pods there are."), AGE),
        lambda obj, now: [
            name_of(obj),
            spec_of(obj).get("replicas") or 0,
            status_of(obj).get("replicas") or 0,
            age_of(obj, now),
        ],
    ),
    ("policy", "PodDisruptionBudget"): (
        (
            NAME,
            Column("Min Available", "Pods that must stay."),
            Column("Max Unavailable", "Pods that may be away."),
            _count("Allowed Disruptions", "Pods that may go now."),
            AGE,
        ),
        _budget,
    ),
    ("", "ResourceQuota"): (
        (NAME, Column("Request", "What is used of each bound."), Column("Limit", "The same, of limits."), AGE),
        _quota,
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        (
            NAME,
            _count("Value", "The priority its pods get."),
            Column("Global-Default", "Whether pods without a class get it.", type="boolean"),
            AGE,
            Column("PreemptionPolicy", "Whether its pods may displace others."),
        ),
        _priority_class,
    ),
}
