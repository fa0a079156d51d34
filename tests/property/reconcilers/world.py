"""A world in memory for the workload decisions: objects, actions applied by the real rules, pods that live and die.

Nothing here decides anything. `World.look` builds what a reconciler observes, `World.perform` applies an action as the
registry would (generation follows the spec, a create that finds its own child succeeds), and the rest plays kubelet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from api.errors import ApiError, already_exists
from api.objects import Object, clone, controller_of, is_deleting, uid_of
from controller.reconcilers import deployment as deployments
from controller.reconcilers import replicaset as replicasets
from controller.reconcilers.actions import Action, Create, Delete, Note, Together, Write, changer_of
from controller.reconcilers.loop import Decision, Failure
from controller.reconcilers.revisions import planned_name
from controller.reconcilers.views import pod_facts

START = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = ("deployments", "x")


def flat(decision: Decision) -> list[Action]:
    """Every single action, in order."""
    actions = decision.actions if decision.status is None else (*decision.actions, decision.status)
    return [one for action in actions for one in (action.actions if isinstance(action, Together) else (action,))]


class World:
    def __init__(self, spec: Object, *, owner: tuple[str, str] = DEPLOYMENT, kind: str = "Deployment") -> None:
        self.now = START
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        self.objects: dict[tuple[str, str], Object] = {}
        self.gone: set[str] = set()
        template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
        body = {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec}
        meta = {"name": "x", "namespace": "w"}
        self._owner = owner
        self._add(owner, {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": body})

    @property
    def deployment(self) -> Object:
        return self.objects[DEPLOYMENT]

    @property
    def owner(self) -> Object:
        """The one workload that a person made."""
        return self.objects[self._owner]

    @property
    def pods(self) -> list[Object]:
        return self.all("pods")

    @property
    def replica_sets(self) -> list[Object]:
        return self.all("replicasets")

    @property
    def running(self) -> list[Object]:
        return [pod for pod in self.pods if not is_deleting(pod)]

    def available(self) -> int:
        return sum(pod_facts(pod).ready for pod in self.running)

    def change_owner(self, **spec: Any) -> None:
        self.owner["spec"].update(spec)
        self._touch(self.owner, spec_changed=True)

    def change_image(self, image: str) -> None:
        self.owner["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self._touch(self.owner, spec_changed=True)

    def look_at_deployment(self, failure: Failure | None = None) -> deployments.Observed:
        uid = uid_of(self.deployment)
        sets = [one for one in self.replica_sets if (controller_of(one) or {"uid": uid})["uid"] == uid]
        running = {uid_of(one): sum(not pod_facts(pod).finished for pod in self.pods_of(one)) for one in sets}
        occupied = ("replicasets", planned_name(self.deployment)) in self.objects
        return deployments.Observed(
            clone(self.deployment), tuple(clone(one) for one in sets), self.now, running, occupied, failure
        )

    def look_at_replica_set(self, name: str, failure: Failure | None = None) -> replicasets.Observed:
        obj = self.objects["replicasets", name]
        pods = tuple(pod_facts(pod) for pod in self.pods_of(obj))
        orphans = tuple(pod_facts(pod) for pod in self.pods if controller_of(pod) is None)
        return replicasets.Observed(clone(obj), pods, self.now, orphans, frozenset(self.gone), {}, failure)

    def perform(self, action: Action) -> None:
        """Raises ApiError as the registry would."""
        if isinstance(action, Create):
            self._create(action)
        elif isinstance(action, Delete):
            self._delete(action)
        elif not isinstance(action, Note | Together) and hasattr(action, "uid"):
            self._write(action)

    def play_ready(self, pod: Object) -> None:
        moment = self.now.isoformat()
        pod["spec"]["nodeName"] = "n"
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": moment}
        pod["status"] = {"phase": "Running", "conditions": [condition]}
        self._touch(pod)

    def play_ended(self, pod: Object, phase: str) -> None:
        pod["status"] = {"phase": phase}
        self._touch(pod)

    def play_gone(self, pod: Object) -> None:
        if is_deleting(pod):
            self.gone.add(pod["metadata"]["name"])
            del self.objects["pods", pod["metadata"]["name"]]

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, rounds: int = 300) -> int:
        """Reconciles and plays kubelet until nothing changes; how many rounds that took."""
        for turn in range(rounds):
            before = self.fingerprint()
            self.step_deployment()
            for one in list(self.replica_sets):
                self.step_replica_set(one["metadata"]["name"])
            for pod in self.pods:
                if is_deleting(pod):
                    self.play_gone(pod)
                elif not pod_facts(pod).ready:
                    self.play_ready(pod)
            self.pass_time(1)
            if self.fingerprint() == before:
                return turn
        raise AssertionError("it never comes to rest")

    def step_deployment(self, stop_after: int | None = None) -> None:
        self.apply(deployments.decide(self.look_at_deployment()), stop_after)

    def step_replica_set(self, name: str, stop_after: int | None = None) -> None:
        if ("replicasets", name) in self.objects:
            self.apply(replicasets.decide(self.look_at_replica_set(name)), stop_after)

    def apply(self, decision: Decision, stop_after: int | None) -> None:
        """As the loop does: in order, up to the first error, or cut off after some actions."""
        for action in flat(decision)[:stop_after]:
            try:
                self.perform(action)
            except ApiError:
                return

    def _create(self, action: Create) -> None:
        obj = clone(action.obj)
        key = (action.kind.plural, obj["metadata"]["name"])
        if key in self.objects:
            if (controller_of(self.objects[key]) or {}).get("uid") != (controller_of(obj) or {}).get("uid"):
                raise already_exists(action.kind.group, action.kind.plural, key[1])
            return
        self._add(key, obj)

    def _delete(self, action: Delete) -> None:
        key = (action.kind.plural, action.name)
        obj = self.objects.get(key)
        if obj is None or uid_of(obj) != action.uid:
            return
        if action.kind.plural == "pods":
            obj["metadata"]["deletionTimestamp"] = self.now.isoformat()
            self._touch(obj)
        else:
            del self.objects[key]

    def _write(self, action: Any) -> None:
        obj = self.objects.get((action.kind.plural, action.name))
        if obj is None:
            return
        changed = changer_of(action)(clone(obj))
        if changed is None or changed == obj:
            return
        spec_changed = changed.get("spec") != obj.get("spec") and not (isinstance(action, Write) and action.subresource)
        obj.clear()
        obj.update(changed)
        self._touch(obj, spec_changed=spec_changed)

    def _add(self, key: tuple[str, str], obj: Object) -> None:
        obj["metadata"] |= {"uid": f"u{next(self._uids)}", "creationTimestamp": self.now.isoformat(), "generation": 1}
        obj.setdefault("status", {"replicas": 0} if key[0] == "replicasets" else {})
        self.objects[key] = obj
        self._touch(obj)

    def _touch(self, obj: Object, *, spec_changed: bool = False) -> None:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        if spec_changed:
            obj["metadata"]["generation"] += 1

    def all(self, plural: str) -> list[Object]:
        return [obj for (kind, _), obj in sorted(self.objects.items()) if kind == plural]

    def pods_of(self, owner: Object) -> Iterator[Object]:
        return (pod for pod in self.pods if (controller_of(pod) or {}).get("uid") == uid_of(owner))

    def fingerprint(self) -> str:
        return repr(sorted(self.objects.items()))
