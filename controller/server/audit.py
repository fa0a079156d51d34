"""The audit log: who did what, when, and what came of it; one JSON line an event.

Called by app.py when a request has been answered. What is logged, and how much of it, says a policy in Kubernetes'
format (audit.k8s.io/v1); without one, every change and every refusal is logged without bodies, but for the constant
hum of leases, events and reviews. Invariants: an acknowledged event is written, late by at most half a second;
contents of Secrets and tokens are never in it; a full disk is told and stops no request. Events:
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
import yaml
from aiohttp import web

from api.codec import decode_body
from api.objects import Object
from api.quick import quick_dataclass
from controller.admission.types import User
from controller.registry.system_fields import new_uid
from controller.server.authentication import ANONYMOUS
from controller.server.call import ASKER, BODY, NAMED, Asker
from controller.server.reply import Answer, Reply
from controller.server.target import Target

FLUSH_SECONDS = 0.5
AT_ONCE_BYTES = 8 << 20
"""With so much unwritten, an event waits for the disk."""
LEVELS = ("None", "Metadata", "Request", "RequestResponse")
RECEIVED, STARTED, COMPLETE, PANIC = STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
"""An event's stage: the user is known; a watch, exec or the like is under way; all is over; we failed."""
_SECRET = frozenset({("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")})
_READS = ("get", "list", "watch")
_CONNECTS = ("exec", "attach", "portforward")
_HUM = ("events", "leases", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")
_REVIEWS = ("tokenreviews", "selfsubjectreviews", "localsubjectaccessreviews")
_log = structlog.get_logger()


class BadPolicy(ValueError):
    """The policy file cannot be used; the message says where it is wrong."""


@dataclass(frozen=True)
class Rule:
    """One rule of a policy; an empty field matches everything. `resources`: (group, resources, names)."""

    level: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    resources: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = ()
    namespaces: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    omitted_stages: frozenset[str] = frozenset()
    omits_managed_fields: bool = False

    def matches(self, user: User, verb: str, target: Target | None, path: str) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not self.groups.intersection(user.groups):
            return False
        if self.verbs and verb not in self.verbs:
            return False
        if not self.resources and not self.namespaces and not self.urls:
            return True
        if target is None:
            return any(url == path or (url.endswith("*") and path.startswith(url[:-1])) for url in self.urls)
        if self.urls or (self.namespaces and target.namespace not in self.namespaces):
            return False
        return not self.resources or any(_names(each, target) for each in self.resources)


def _names(resource: tuple[str, frozenset[str], frozenset[str]], target: Target) -> bool:
    group, resources, names = resource
    if group != target.group or (names and target.name not in names):
        return False
    if not resources or "*" in resources:
        return True
    if not target.subresource:
        return target.resource in resources
    wanted = (f"{target.resource}/{target.subresource}", f"{target.resource}/*", f"*/{target.subresource}")
    return any(each in resources for each in wanted)


def parse_policy(text: str) -> tuple[Rule, ...]:
    """The rules of a policy file. Raises BadPolicy."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadPolicy(f"no YAML: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != "Policy":
        raise BadPolicy("kind: must be Policy, of apiVersion audit.k8s.io/v1")
    if document.get("apiVersion") != "audit.k8s.io/v1":
        raise BadPolicy("apiVersion: must be audit.k8s.io/v1")
    _check_names(document, ("apiVersion", "kind", "metadata", "rules", *_OMISSIONS), "")
    everywhere = _omissions(document, "")
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise BadPolicy("rules: at least one is needed; the first that matches a request decides")
    return tuple(_rule(each, f"rules[{index}]", everywhere) for index, each in enumerate(rules))


_OMISSIONS = ("omitStages", "omitManagedFields")
_RULE_LISTS = ("users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs")


def _rule(wire: Any, path: str, everywhere: tuple[frozenset[str], bool]) -> Rule:
    if not isinstance(wire, dict):
        raise BadPolicy(f"{path}: must be a mapping")
    _check_names(wire, ("level", *_RULE_LISTS, *_OMISSIONS), f"{path}.")
    if wire.get("level") not in LEVELS:
        raise BadPolicy(f"{path}.level: {wire.get('level')!r} is none of {', '.join(LEVELS)}")
    for name in _RULE_LISTS:
        if not isinstance(wire.get(name) or [], list):
            raise BadPolicy(f"{path}.{name}: must be a list")
    resources = []
    for index, each in enumerate(wire.get("resources") or ()):
        if not isinstance(each, dict):
            raise BadPolicy(f"{path}.resources[{index}]: must be a mapping with group and resources")
        _check_names(each, ("group", "resources", "resourceNames"), f"{path}.resources[{index}].")
        names = frozenset(each.get("resourceNames") or ())
        resources.append((each.get("group") or "", frozenset(each.get("resources") or ()), names))
    stages, managed = _omissions(wire, f"{path}.")
    return Rule(
        level=wire["level"],
        users=frozenset(wire.get("users") or ()),
        groups=frozenset(wire.get("userGroups") or ()),
        verbs=frozenset(wire.get("verbs") or ()),
        resources=tuple(resources),
        namespaces=frozenset(wire.get("namespaces") or ()),
        urls=tuple(wire.get("nonResourceURLs") or ()),
        omitted_stages=stages | everywhere[0],
        omits_managed_fields=managed if wire.get("omitManagedFields") is not None else everywhere[1],
    )


def _check_names(wire: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in wire:
        if name not in known:
            raise BadPolicy(f"{path}{name}: unknown field; known are {', '.join(known)}")


def _omissions(wire: Mapping[str, Any], path: str) -> tuple[frozenset[str], bool]:
    """(stages that are not logged, whether managedFields are left out), of a policy or a rule."""
    stages, managed = wire.get("omitStages") or [], wire.get("omitManagedFields") or False
    if not isinstance(stages, list) or not set(stages) <= set(STAGES):
        raise BadPolicy(f"{path}omitStages: must be a list of {', '.join(STAGES)}")
    if not isinstance(managed, bool):
        raise BadPolicy(f"{path}omitManagedFields: must be true or false")
    return frozenset(stages), managed


@dataclass(frozen=True)
class AuditSettings:
    """Where events go (None: nowhere), by which policy. A file of `limit_bytes` is renamed; `kept` old ones stay."""

    path: Path | None = None
    rules: tuple[Rule, ...] | None = None
    limit_bytes: int = 100 << 20
    kept: int = 5


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
    if target is None or target.resource in _HUM or target.resource in _REVIEWS:
        return "None"
    if asked.verb in _READS and target.subresource not in _CONNECTS:
        return "None"
    return "None" if asked.asker.user.node and target.subresource == "status" else "Metadata"


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
