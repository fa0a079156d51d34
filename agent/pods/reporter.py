"""Sends one pod's status to the API: the newest only, at once when it matters, never twice the same.

One per worker; `run` is a task of the worker's group. While the API is away the newest status waits and is sent later.
What matters (phase, readiness, restarts, reasons) goes out at once; what is only a step on the way waits a moment, so
that a quick start costs one write. Invariant: after `flush` returned True the API has what was offered last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from agent.pods.conditions import RESIZING
from agent.pods.phase import FINAL_PHASES
from api import errors
from api.client import STRATEGIC_PATCH, Client
from api.kinds import by_resource
from api.objects import Object, is_ready, name_of, namespace_of, uid_of

PODS = by_resource("", "pods")
PATIENCE_SECONDS = 1.0
RETRY_FIRST_SECONDS = 0.2
RETRY_LAST_SECONDS = 5.0
REFUSED_SECONDS = 10.0
_LISTS_REPLACED = ("podIPs", "hostIPs")
_log = structlog.get_logger()


class StatusReporter:
    def __init__(self, client: Client, pod: Object) -> None:
        self._client = client
        self._namespace, self._name, self._uid = namespace_of(pod), name_of(pod), uid_of(pod)
        self._sent: Object = dict(pod.get("status") or {})
        self._sent_version = _version(pod)
        self._offered: Object | None = None
        self._due = asyncio.Event()
        self._urgent = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.vanished = False
        """The API has no such pod any more (or another one of that name)."""

    def offer(self, status: Object, *, ending: bool = False) -> None:
        """Takes a status to send. Cheap when it is the one that was sent last; `ending`: better news follow soon."""
        if self.vanished or (self._offered is None and _covers(self._sent, status)) or status == self._offered:
            return
        urgent = not ending and _matters(self._offered or self._sent, status)
        self._offered = status
        self._settled.clear()
        self._due.set()
        if urgent:
            self._urgent.set()

    def heard(self, pod: Object) -> None:
        """The API's newest version of the pod: if others changed what is the agent's, the next offer puts it right."""
        if _version(pod) > self._sent_version:
            self._sent, self._sent_version = dict(pod.get("status") or {}), _version(pod)

    async def flush(self, seconds: float) -> bool:
        """Waits until what was offered is known to the API; False when that took too long."""
        self._urgent.set()
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Sends what is offered until cancelled."""
        retry = RETRY_FIRST_SECONDS
        while True:
            await self._due.wait()
            await self._wait_for_urgency()
            self._due.clear()
            self._urgent.clear()
            status = self._offered
            if status is None or self.vanished:
                self._settled.set()
                continue
            try:
                await self._send(status)
                retry = RETRY_FIRST_SECONDS
            except errors.ApiError as error:
                pause = retry if error.retryable else REFUSED_SECONDS
                if not error.retryable:
                    _log.warning("status refused", pod=self._name, namespace=self._namespace, error=error.message)
                retry = min(retry * 2, RETRY_LAST_SECONDS)
                await asyncio.sleep(pause)
                self._due.set()
                self._urgent.set()
                continue
            if self._offered == status:
                self._offered = None
                self._settled.set()

    async def confirm_deleted(self) -> None:
        """Tells the API that nothing of a deleted pod runs any more; it then goes. Raises ApiError (retry later)."""
        await confirm_gone(self._client, self._namespace, self._name, self._uid)

    async def _wait_for_urgency(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _send(self, status: Object) -> None:
        if _covers(self._sent, status):
            return
        body = {"metadata": {"uid": self._uid}, "status": patch_between(self._sent, status)}
        target = (self._namespace, self._name, "status")
        try:
            reply = await self._client.patch(PODS, target, body, STRATEGIC_PATCH)
        except (errors.NotFound, errors.Conflict) as error:
            if isinstance(error, errors.Conflict) and not await self._replaced():
                raise errors.ServiceUnavailable(error.message) from error
            self.vanished = True
            return
        self._sent, self._sent_version = dict(reply.get("status") or status), _version(reply)

    async def _replaced(self) -> bool:
        try:
            return uid_of(await self._client.get(PODS, self._namespace, self._name)) != self._uid
        except errors.NotFound:
            return True


def _version(pod: Mapping[str, Any]) -> int:
    text = (pod.get("metadata") or {}).get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0


def patch_between(sent: Mapping[str, Any], status: Mapping[str, Any]) -> Object:
    """The strategic merge patch from one status to the next. Pure: what is gone is null, addresses are replaced."""
    change: Object = {}
    for key, value in status.items():
        if key == "conditions":
            known = {entry["type"]: entry for entry in sent.get("conditions") or ()}
            changed = [_condition(known.get(entry["type"], {}), entry) for entry in value]
            changed += [{"$patch": "delete", "type": kind} for kind in _passed(known, value)]
            if changed := [entry for entry in changed if entry]:
                change[key] = changed
        elif sent.get(key) != value:
            change[key] = [{"$patch": "replace"}, *value] if key in _LISTS_REPLACED and sent.get(key) else value
    return change


def _passed(known: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> list[str]:
    """Conditions of ours that are true no longer, and then are not there."""
    present = {entry["type"] for entry in wanted}
    return [kind for kind in RESIZING if kind in known and kind not in present]


def _condition(known: Mapping[str, Any], entry: Mapping[str, Any]) -> Object:
    if _covers(known, entry) and not any(known.get(key) and key not in entry for key in ("reason", "message")):
        return {}
    return {**{key: None for key in ("reason", "message") if known.get(key)}, **entry}


def _covers(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `known` says all that `wanted` says (lists of conditions by type)."""
    for key, value in wanted.items():
        if key == "conditions":
            have = {entry["type"]: entry for entry in known.get("conditions") or ()}
            if _passed(have, value) or any(_condition(have.get(entry["type"], {}), entry) for entry in value):
                return False
        elif not _same(known.get(key), value):
            return False
    return True


def _same(known: Any, wanted: Any) -> bool:
    """Equal, if absent and empty are the same (the API drops what is empty)."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        return all(_same(known.get(key), wanted.get(key)) for key in known.keys() | wanted.keys())
    if isinstance(known, list) and isinstance(wanted, list):
        return len(known) == len(wanted) and all(map(_same, known, wanted))
    return bool(known == wanted) or (not known and not wanted)


def _matters(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether somebody may be waiting for this change."""
    if before.get("phase") != after.get("phase") and (before.get("phase") or "Pending") != after.get("phase"):
        return True
    if after.get("phase") in FINAL_PHASES:
        return True  # the last news of a pod: nothing follows that it could wait for
    ready = [is_ready({"status": status}) for status in (before, after)]
    return ready[0] != ready[1] or _essence(before) != _essence(after) or _sizes(before) != _sizes(after)


def _sizes(status: Mapping[str, Any]) -> list[Any]:
    """How a resize stands."""
    known = {entry["type"]: entry for entry in status.get("conditions") or ()}
    found: list[Any] = [(known.get(kind) or {}).get("reason", kind in known) for kind in RESIZING]
    entries = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return found + [entry.get("resources") or {} for entry in entries if "running" in (entry.get("state") or {})]


def _essence(status: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    found = []
    for section in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(section) or ():
            states: Mapping[str, Any] = entry.get("state") or {"waiting": {}}
            state, given = next(iter(states.items()))
            reason = (given or {}).get("reason") or ""
            quiet = state == "waiting" and reason in ("ContainerCreating", "PodInitializing", "")
            found.append(("", "", 0) if quiet else (state, reason, entry.get("restartCount") or 0))
    return [entry for entry in found if entry[0]]


async def confirm_gone(client: Client, namespace: str, name: str, uid: str) -> None:
    """Takes a pod of which nothing runs any more from the API. Raises ApiError (retry later)."""
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": uid},
    }
    try:
        await client.delete(PODS, namespace, name, options)
    except (errors.NotFound, errors.Conflict):
        return
