"""The audit log: who did what, when, and what came of it; one JSON line an event.

Called by app.py when a request has been answered. What is logged, and how much of it, says a policy in Kubernetes'
format (see audit_policy); without one, every change and every refusal is logged without bodies, and joins, reads of
Secrets and what passes a proxy, but for the constant hum of leases, events and reviews. What the leader's own loops
write is logged, too, each in the name of its controller. Invariants: an acknowledged event is written, late by at most
half a second; contents of Secrets and tokens are never in it; a full disk is told and stops no request. Events:
https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import structlog
from aiohttp import web

from api.codec import decode_body
from api.objects import Object
from api.quick import quick_dataclass
from controller.admission.types import Request, User
from controller.registry.system_fields import new_uid
from controller.registry.types import Target as Written
from controller.server.audit_policy import COMPLETE, LEVELS, RECEIVED, STARTED, Rule
from controller.server.authentication import ANONYMOUS
from controller.server.call import ASKER, BODY, NAMED, Asker
from controller.server.connect import reads_metrics
from controller.server.reply import Answer, Reply
from controller.server.target import Target

FLUSH_SECONDS = 0.5
EXPIRY_SECONDS = 3600.0
AT_ONCE_BYTES = 8 << 20
"""With so much unwritten, an event waits for the disk."""
_SECRET = frozenset({("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")})
_READS = ("get", "list", "watch")
_CONNECTS = ("exec", "attach", "portforward")
_HUM = ("events", "leases", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")
JOIN_PATH = "/wherry/v1/join"
_REVIEWS = ("tokenreviews", "selfsubjectreviews", "localsubjectaccessreviews")
_log = structlog.get_logger()


@dataclass(frozen=True)
class AuditSettings:
    """Where events go (None: nowhere), by which policy. A file of `limit_bytes` is renamed; `kept` old ones stay, for
    `kept_days` (0: for ever). The defaults are those of the CIS benchmark."""

    path: Path | None = None
    rules: tuple[Rule, ...] | None = None
    limit_bytes: int = 100 << 20
    kept: int = 10
    kept_days: int = 30


NO_AUDIT = AuditSettings()


@quick_dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as the log tells of it."""

    request: web.BaseRequest
    verb: str
    target: Target | None
    received: float

    @property
    def asker(self) -> Asker:
        asker: Asker = self.request.get(ASKER, _NOBODY)
        return asker


ASKED = web.RequestKey("asked", Asked)
_NOBODY = Asker(ANONYMOUS)
_ID = web.RequestKey("audit_id", str)
_NEVER = Rule("None")
_USUAL = {level: Rule(level, omitted_stages=frozenset((RECEIVED,))) for level in LEVELS}


@dataclass
class AuditLog:
    """One file. `run` writes; without it `note` writes at once."""

    settings: AuditSettings
    _pending: list[bytes] = field(default_factory=list)
    _pending_bytes: int = 0
    _running: bool = False
    _expires_next: float = 0.0
    failures: int = 0

    @property
    def wanted(self) -> bool:
        return self.settings.path is not None

    def note(self, request: web.BaseRequest, stage: str, answer: Answer | int | None = None) -> None:
        """Logs that a request came to this stage, if the policy says so. `answer` may be its code only; None when there
        is none, or nobody heard it: the client went away."""
        asked = request.get(ASKED)
        if asked is None or (stage is RECEIVED and self.settings.rules is None):
            return
        status = answer if isinstance(answer, int) else answer.status if answer is not None else 0
        rule = self._rule(asked, status)
        if rule.level == "None" or stage in rule.omitted_stages:
            return
        event = _event(asked, stage, rule)
        if answer is not None:
            event["responseStatus"] = {"metadata": {}, "code": status, **_refusal(answer)}
            if rule.level == "RequestResponse" and stage is not STARTED and isinstance(answer, Reply):
                _show(event, "responseObject", _as_json(answer), asked.target, rule)
        self._add(event)

    def note_own(self, request: Request, verb: str, written: Written) -> None:
        """Logs a write of the leader's loops, which comes by no connection. Bodies are not kept."""
        kind = written.kind
        target = Target(
            kind.group, kind.version, kind.plural, written.namespace, written.name, written.subresource, "", kind
        )
        path = _path_of(target)
        rules = self.settings.rules
        level = _own_level(target)
        if rules is not None:
            matching = (rule for rule in rules if rule.matches(request.user, verb, target, path))
            rule = next(matching, _NEVER)
            level = "None" if COMPLETE in rule.omitted_stages else rule.level
        if level == "None":
            return
        now = _time(time.time())
        self._add(
            {
                "kind": "Event",
                "apiVersion": "audit.k8s.io/v1",
                "level": "Metadata",
                "auditID": new_uid(),
                "stage": COMPLETE,
                "requestURI": path,
                "verb": verb,
                "user": _user(request.user),
                "sourceIPs": ["127.0.0.1"],
                "userAgent": "wherry-controller",
                "objectRef": _reference(target, {}),
                "responseStatus": {"metadata": {}, "code": 201 if verb == "create" else 200},
                "requestReceivedTimestamp": now,
                "stageTimestamp": now,
            }
        )

    def _add(self, event: Object) -> None:
        line = orjson.dumps(event) + b"\n"
        self._pending.append(line)
        self._pending_bytes += len(line)
        if not self._running or self._pending_bytes > AT_ONCE_BYTES:
            self._write(self._taken())

    def _rule(self, asked: Asked, status: int) -> Rule:
        rules = self.settings.rules
        if rules is None:
            return _USUAL[_usual_level(asked, status)]
        path = asked.request.path
        user = asked.asker.user
        return next((rule for rule in rules if rule.matches(user, asked.verb, asked.target, path)), _NEVER)

    async def run(self) -> None:
        """Writes what was recorded, twice a second, until cancelled; then what is left."""
        if self.settings.path is None:
            return
        self._running = True
        try:
            while True:
                self._expire()
                await asyncio.sleep(FLUSH_SECONDS)
                if self._pending:
                    await asyncio.to_thread(self._write, self._taken())
        finally:
            self._running = False
            self._write(self._taken())

    def _taken(self) -> list[bytes]:
        taken, self._pending, self._pending_bytes = self._pending, [], 0
        return taken

    def _write(self, lines: Iterable[bytes]) -> None:
        path = self.settings.path
        data = b"".join(lines)
        if path is None or not data:
            return
        try:
            if path.exists() and path.stat().st_size + len(data) > self.settings.limit_bytes:
                self._rotate(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", opener=_private) as file:
                file.write(data)
        except OSError as error:
            self.failures += 1
            _log.error("audit events are lost", path=str(path), error=str(error))

    def _expire(self) -> None:
        """Old files that are past their days go, once an hour."""
        path, days, now = self.settings.path, self.settings.kept_days, time.time()
        if path is None or not days or now < self._expires_next:
            return
        self._expires_next = now + EXPIRY_SECONDS
        for old in path.parent.glob(f"{path.name}.*"):
            with contextlib.suppress(OSError):
                if old.suffix[1:].isdigit() and old.stat().st_mtime < now - days * 86400:
                    old.unlink()

    def _rotate(self, path: Path) -> None:
        """audit.log becomes audit.log.1, and so on; the oldest goes."""
        for number in range(self.settings.kept, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _usual_level(asked: Asked, status: int) -> str:
    """Changes and refusals, without what every component does all the time."""
    target = asked.target
    if status in (401, 403):
        return "Metadata"
    if target is None:
        return "Metadata" if asked.request.path == JOIN_PATH else "None"
    if target.resource in _HUM or target.resource in _REVIEWS:
        return "None"
    if target.subresource == "proxy":
        return "None" if reads_metrics(asked.request, target) else "Metadata"
    if asked.verb in _READS and target.subresource not in _CONNECTS:
        return "Metadata" if (target.group, target.resource) == ("", "secrets") else "None"
    return "None" if asked.asker.user.node and target.subresource == "status" else "Metadata"


def _own_level(target: Target) -> str:
    """Of what loops write, statuses follow from what is logged already."""
    return "None" if target.resource in _HUM or target.subresource == "status" else "Metadata"


def _path_of(target: Target) -> str:
    start = f"/apis/{target.group}/{target.version}" if target.group else f"/api/{target.version}"
    namespace = f"/namespaces/{target.namespace}" if target.namespace else ""
    parts = (target.resource, target.name, target.subresource)
    return start + namespace + "".join(f"/{part}" for part in parts if part)


def _event(asked: Asked, stage: str, rule: Rule) -> Object:
    request, target = asked.request, asked.target
    user, acting_as = asked.asker
    if _ID not in request:
        request[_ID] = new_uid()
    event: Object = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": rule.level,
        "auditID": request[_ID],
        "stage": stage,
        "requestURI": request.raw_path,
        "verb": asked.verb,
        "user": _user(user),
        "sourceIPs": [request.remote or ""],
        "requestReceivedTimestamp": _time(asked.received),
        "stageTimestamp": _time(time.time()),
    }
    if agent := request.headers.get("User-Agent"):
        event["userAgent"] = agent
    if acting_as is not None:
        event["impersonatedUser"] = _user(acting_as)
    if target is not None:
        event["objectRef"] = _reference(target, request.get(NAMED) or {})
    elif request.path == JOIN_PATH:
        event["objectRef"] = {"resource": "nodes", "name": _joining(request.get(BODY)), "apiVersion": "v1"}
    if rule.level in ("Request", "RequestResponse"):
        _show(event, "requestObject", request.get(BODY), target, rule)
    return event


def _user(user: User) -> Object:
    shown: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        shown["uid"] = user.uid
    if user.extra:
        shown["extra"] = {name: list(values) for name, values in user.extra.items()}
    return shown


@lru_cache(maxsize=64)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(seconds: float) -> str:
    """As metav1.MicroTime; strftime takes five times as long, so it is asked once a second."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1e6):06d}Z"


def _refusal(answer: Answer | int) -> Object:
    """What the Status of a refusal says."""
    if isinstance(answer, Reply) and answer.status >= 400:
        with contextlib.suppress(orjson.JSONDecodeError):
            told = orjson.loads(answer.body)
            if isinstance(told, dict):
                return {name: told[name] for name in ("status", "message", "reason") if name in told}
    return {}


def _reference(target: Target, body: Mapping[str, Any]) -> Object:
    """What the request is about: as the path says it, else as its body does."""
    named = {
        "uid": body.get("uid"),
        "resourceVersion": body.get("resourceVersion"),
        "resource": target.resource,
        "namespace": target.namespace or body.get("namespace"),
        "name": target.name or body.get("name"),
        "apiGroup": target.group,
        "apiVersion": target.version,
        "subresource": target.subresource,
    }
    return {name: value for name, value in named.items() if value}


def _joining(body: bytes | None) -> str:
    """The name that a join asks for, whatever comes of it."""
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        return str(orjson.loads(body or b"{}").get("nodeName") or "")
    return ""


def _as_json(answer: Reply) -> bytes:
    if "yaml" not in answer.content_type:
        return answer.body
    return orjson.dumps(decode_body(answer.body, "application/yaml", None).obj)


def _show(event: Object, name: str, body: bytes | None, target: Target | None, rule: Rule) -> None:
    """Adds a body as the log may hold it: parsed, secrets taken out; nothing of what is no JSON."""
    try:
        shown = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return
    if target is not None:
        resource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
        shown = _redacted(shown) if (target.group, resource) in _SECRET else shown
    if rule.omits_managed_fields and isinstance(shown, dict):
        for each in (shown, *(shown.get("items") or ())):
            if isinstance(each, dict) and isinstance(each.get("metadata"), dict):
                each["metadata"].pop("managedFields", None)
    event[name] = shown


def _redacted(value: Any) -> Any:
    """Names of entries stay, values go; tokens too."""
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    shown: Object = {}
    for name, item in value.items():
        if name in ("data", "stringData") and isinstance(item, Mapping):
            shown[name] = dict.fromkeys(item, "<redacted>")
        elif (name == "value" and "op" in value) or (name == "token" and isinstance(item, str)):  # JSON patches' values
            shown[name] = "<redacted>"
        elif name == "annotations" and isinstance(item, Mapping):
            last = "kubectl.kubernetes.io/last-applied-configuration"
            shown[name] = {key: "<redacted>" if key == last else text for key, text in item.items()}
        else:
            shown[name] = _redacted(item)
    return shown
