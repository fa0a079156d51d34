"""What every new pod is given: default tolerations and its priority; and the taint every new node starts with.

Called by the chain. Rules from the admission plugins DefaultTolerationSeconds, Priority and TaintNodesByCondition.
Changes only the object being written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object
from controller.admission.attributes import Attributes, Reader
from controller.store.types import Key

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
TOLERATION_SECONDS = 300
CLASSES = ("scheduling.k8s.io", "priorityclasses")
_GLOBAL = b'"globalDefault":true'
SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
"""The two classes every cluster has (https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/)."""


def add_default_tolerations(pod: Object) -> None:
    """A pod that says nothing about lost nodes stays bound to one for five minutes."""
    tolerations = pod["spec"].get("tolerations") or []
    missing = [
        key
        for key in (NOT_READY, UNREACHABLE)
        if not tolerations or not any(_tolerates(each, key) for each in tolerations)
    ]
    if missing:
        pod["spec"]["tolerations"] = [*tolerations, *map(_for_five_minutes, missing)]


def _tolerates(toleration: Mapping[str, Any], key: str) -> bool:
    return toleration.get("key", "") in ("", key) and toleration.get("effect", "") in ("", "NoExecute")


def _for_five_minutes(key: str) -> Object:
    return {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}


def set_priority(attributes: Attributes, reader: Reader) -> None:
    """Turns priorityClassName into the number the scheduler compares. Raises Forbidden for an unknown class."""
    pod = attributes.obj
    assert pod is not None
    spec = pod["spec"]
    name = spec.get("priorityClassName") or ""
    priority, preemption = _priority(attributes, reader, name)
    given = spec.get("priority")
    if given is not None and given != priority:
        raise attributes.forbidden(
            f"the integer value of priority ({given}) must not be provided in pod spec; "
            f"priority admission controller computed {priority} from the given PriorityClass name"
        )
    spec["priority"] = priority
    spec.setdefault("preemptionPolicy", preemption)


def _priority(attributes: Attributes, reader: Reader, name: str) -> tuple[int, str]:
    if not name:
        return _default_priority(attributes, reader)
    record = reader.get(Key("scheduling.k8s.io", "priorityclasses", "", name))
    if record is not None:
        priority_class = record.parse()
        return priority_class.get("value", 0), priority_class.get("preemptionPolicy", "PreemptLowerPriority")
    if name in SYSTEM_PRIORITIES:
        return SYSTEM_PRIORITIES[name], "PreemptLowerPriority"
    raise attributes.forbidden(f"no PriorityClass with name {name} was found")


def _default_priority(attributes: Attributes, reader: Reader) -> tuple[int, str]:
    """The class with globalDefault; of several the one with the smallest value. None: priority 0."""
    chosen = _default_class(reader)
    if chosen is None:
        return 0, "PreemptLowerPriority"
    assert attributes.obj is not None
    attributes.obj["spec"]["priorityClassName"] = chosen["metadata"]["name"]
    return chosen["value"], chosen.get("preemptionPolicy", "PreemptLowerPriority")


def _default_class(reader: Reader) -> Object | None:
    if not reader.count(CLASSES):
        return None
    found = [record.parse() for record in reader.list(CLASSES).records if _GLOBAL in record.raw]
    return min((each for each in found if each.get("globalDefault")), key=lambda each: each["value"], default=None)


def admit_runtime_class(attributes: Attributes, reader: Reader) -> None:
    """Raises Forbidden for a RuntimeClass that does not exist, and an overhead that no class has."""
    spec = (attributes.obj or {})["spec"]
    name, overhead = spec.get("runtimeClassName"), spec.get("overhead")
    if name is None and overhead is None:
        return
    record = reader.get(Key("node.k8s.io", "runtimeclasses", "", name)) if name is not None else None
    if name is not None and record is None:
        raise attributes.forbidden(f'pod rejected: RuntimeClass "{name}" not found')
    known = (record.parse().get("overhead") or {}).get("podFixed") if record is not None else None
    if known is None and overhead is not None:
        told = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        raise attributes.forbidden(told)


def refuse_second_default(attributes: Attributes, reader: Reader) -> None:
    """Raises Forbidden for a PriorityClass that would be a second default."""
    present = _default_class(reader) if (attributes.obj or {}).get("globalDefault") else None
    if present is not None and present["metadata"]["name"] != attributes.name:
        told = f"PriorityClass {present['metadata']['name']} is already marked as default. Only one default can exist"
        raise attributes.forbidden(told)


def taint_new_node(node: Object) -> None:
    """A node takes no pods before its first Ready report is seen; the node lifecycle removes the taint."""
    spec = node.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(taint.get("key") == NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
        spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
