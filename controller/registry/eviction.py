"""Eviction: the delete that asks the pod's disruption budget first.

Called by the Registry for POST pods/NAME/eviction (kubectl drain). A budget is spent by a compare-and-set on its
status, in which the pod's name stays until the disruption reconciler has seen it go: so two evictions never spend the
same disruption. Rules and wording: k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go,
https://kubernetes.io/docs/tasks/run-application/configure-pdb/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.errors import BadRequest, Conflict, Forbidden, TooManyRequests, Unexplained, conflict
from api.kinds import Kind, by_resource
from api.objects import Object, condition_of, is_deleting, is_ready, labels_of, name_of, namespace_of, uid_of
from api.selectors import LabelSelector, from_object
from controller.admission.types import Request
from controller.registry.deletion import delete
from controller.registry.ground import RACES, Ground, part_of
from controller.registry.intake import settle_namespace
from controller.registry.system_fields import timestamp
from controller.registry.types import DeleteOptions, Deletion, Target
from controller.registry.update import change
from controller.store import Query

PODS = by_resource("", "pods")
EVICTION = Kind("policy", "v1", "Eviction", "evictions", verbs=())
BUDGETS = by_resource("policy", "poddisruptionbudgets")
ALLOWED, SYNC_FAILED = "DisruptionAllowed", "SyncFailed"
_MOST_DISRUPTED = 2000
_CANNOT = "Cannot evict pod as it would violate the pod's disruption budget."
_RETRY_SECONDS = 10
_FINISHED = ("Succeeded", "Failed")


def eviction_options(name: str, obj: Mapping[str, Any]) -> DeleteOptions:
    """Reads a policy/v1 Eviction. Raises BadRequest when it names another pod than the URL."""
    if ((obj.get("metadata") or {}).get("name") or "") != name:
        raise BadRequest("name in URL does not match name in Eviction object")
    return DeleteOptions.from_object(obj.get("deleteOptions") or {})


async def evict(ground: Ground, request: Request, target: Target, obj: Object) -> Deletion:
    """Deletes a pod (`target`) if its budget allows it, as an Eviction asks. Raises BadRequest, NotFound, Conflict
    (preconditions), Forbidden, TooManyRequests."""
    name = target.name
    settle_namespace(target, obj)
    eviction_options(name, obj)
    pod = (await ground.newest(target)).parse()
    attributes = part_of(request, target, EVICTION, obj, whole=pod)
    await ground.admit(attributes)
    options = eviction_options(name, obj)
    await ground.approve(attributes)
    for _ in range(RACES):
        budget = None if _is_no_disruption(pod) else _budget_of(ground, pod)
        free = budget is not None and _is_free(budget, pod)
        if budget is not None and not free:
            await _spend(ground, request, budget, pod)
        pinned = (free or _phase(pod) == "Pending") and not options.resource_version and not options.uid
        chosen = replace(options, resource_version=pod["metadata"]["resourceVersion"]) if pinned else options
        try:
            return await _tell_and_delete(ground, request, pod, chosen)
        except Conflict:  # it may have become ready since
            if not pinned:
                raise
            if budget is not None:
                raise _still_processed(name_of(budget)) from None
            pod = (await ground.newest(target)).parse()
    raise conflict("", "pods", name)


def _is_no_disruption(pod: Object) -> bool:
    """It serves nobody yet, or no more."""
    return is_deleting(pod) or _phase(pod) in ("Pending", *_FINISHED)


def _phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def _budget_of(ground: Ground, pod: Object) -> Object | None:
    """The budget that the pod is under. Raises Unexplained when there are several, as Kubernetes does."""
    records = ground.store.list(BUDGETS.resource, Query(namespace=namespace_of(pod))).records
    budgets = [
        budget for budget in (record.parse() for record in records) if selector_of(budget).matches(labels_of(pod))
    ]
    if len(budgets) > 1:
        several = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise Unexplained(several)
    return budgets[0] if budgets else None


def selector_of(budget: Mapping[str, Any]) -> LabelSelector:
    """The pods a budget is about: an empty selector means all of its namespace, none at all means none."""
    return from_object((budget.get("spec") or {}).get("selector"))


def _is_free(budget: Object, pod: Object) -> bool:
    """An unready pod costs nothing while the others are enough, or if the budget's owner says so."""
    if is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return desired > 0 and (status.get("currentHealthy") or 0) >= desired


async def _spend(ground: Ground, request: Request, budget: Object, pod: Object) -> None:
    moment = timestamp(request.now())
    target = Target(BUDGETS, namespace_of(budget), name_of(budget), "status")
    await change(ground, request, target, lambda newest: spent(newest, name_of(pod), moment))


def spent(budget: Object, pod: str, moment: str) -> Object:
    """The budget (changed in place) after one more disruption. Raises TooManyRequests, Forbidden."""
    status = budget.setdefault("status", {})
    name, allowed = name_of(budget), status.get("disruptionsAllowed") or 0
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        raise _still_processed(name)
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _MOST_DISRUPTED:
        raise _forbidden(name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if allowed == 0:
        raise _too_many(_why_none(name, status))
    status["disruptionsAllowed"] = allowed - 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: moment}
    if allowed == 1:
        status["conditions"] = allowance(status, moment)
    return budget


def allowance(status: Mapping[str, Any], moment: str) -> list[Object]:
    """The conditions of a budget whose `disruptionsAllowed` is as given."""
    allowed = bool(status.get("disruptionsAllowed"))
    reason = "SufficientPods" if allowed else "InsufficientPods"
    return with_allowance(status, moment, str(allowed), reason, "")


def with_allowance(status: Mapping[str, Any], moment: str, value: str, reason: str, message: str) -> list[Object]:
    """All conditions of a budget, DisruptionAllowed as given; its time changes when its value does."""
    before = condition_of(status, ALLOWED) or {}
    since = before["lastTransitionTime"] if before.get("status") == value else moment
    condition: Object = {"type": ALLOWED, "status": value, "reason": reason, "message": message}
    condition |= {"lastTransitionTime": since, "observedGeneration": status.get("observedGeneration") or 0}
    return [*(one for one in status.get("conditions") or () if one["type"] != ALLOWED), condition]


def _why_none(name: str, status: Mapping[str, Any]) -> str:
    condition = condition_of(status, ALLOWED) or {}
    current, desired = status.get("currentHealthy") or 0, status.get("desiredHealthy") or 0
    cannot = f"The disruption budget {name} does not allow evicting pods currently"
    if condition.get("reason") == SYNC_FAILED and condition.get("message"):
        return f"{cannot} because it failed sync: {condition['message']}"
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    return cannot


def _still_processed(name: str) -> TooManyRequests:
    return _too_many(f"The disruption budget {name} is still being processed by the server.", _RETRY_SECONDS)


def _too_many(why: str, retry_seconds: int = 0) -> TooManyRequests:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    return TooManyRequests(_CANNOT, details | ({"retryAfterSeconds": retry_seconds} if retry_seconds else {}))


def _forbidden(name: str, why: str) -> Forbidden:
    group, plural = BUDGETS.group, "poddisruptionbudget"
    details = {"group": group, "kind": plural, "name": name}
    return Forbidden(f'{plural}.{group} "{name}" is forbidden: {why}', details)


async def _tell_and_delete(ground: Ground, request: Request, pod: Object, options: DeleteOptions) -> Deletion:
    """First the pod is told why (condition DisruptionTarget), then it goes."""
    target = Target(PODS, namespace_of(pod), name_of(pod))
    moment = timestamp(request.now())

    def told(current: Object) -> Object | None:
        version = current["metadata"]["resourceVersion"]
        if options.uid not in ("", uid_of(current)) or options.resource_version not in ("", version):
            return None  # the delete will say so
        return None if is_deleting(current) or _phase(current) in _FINISHED else _disrupted(current, moment)

    record = await change(ground, request, replace(target, subresource="status"), told)
    if record is not None and options.resource_version and not request.dry_run:
        options = replace(options, resource_version=str(record.version))
    return await delete(ground, request, target, options, admitted=True)


def _disrupted(pod: Object, moment: str) -> Object:
    status = pod["status"]
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": moment,
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    others = [one for one in status.get("conditions") or () if one["type"] != condition["type"]]
    status["conditions"] = [*others, condition]
    return pod
