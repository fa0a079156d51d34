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

from api.objects import Object
from api.quick import quick_dataclass
from controller.admission.types import User
from controller.registry.system_fields import new_uid
from controller.server.call import BODY
from controller.server.reply import Answer, Reply
from controller.server.target import Target

FLUSH_SECONDS = 0.5
AT_ONCE_BYTES = 8 << 20
"""With so much unwritten, an event waits for the disk."""
LEVELS = ("None", "Metadata", "Request", "RequestResponse")
_SECRET = frozenset({("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")})
_READS = ("get", "list", "watch")
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
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise BadPolicy("rules: at least one is needed; the first that matches a request decides")
    return tuple(_rule(each, f"rules[{index}]") for index, each in enumerate(rules))


def _rule(wire: Any, path: str) -> Rule:
    known = ("level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs")
    ignored = ("omitStages", "omitManagedFields")
    if not isinstance(wire, dict):
        raise BadPolicy(f"{path}: must be a mapping")
    for name in wire:
        if name not in (*known, *ignored):
            raise BadPolicy(f"{path}.{name}: unknown field; known are {', '.join((*known, *ignored))}")
    if wire.get("level") not in LEVELS:
        raise BadPolicy(f"{path}.level: {wire.get('level')!r} is none of {', '.join(LEVELS)}")
    for name in known[1:]:
        if not isinstance(wire.get(name) or [], list):
            raise BadPolicy(f"{path}.{name}: must be a list")
    resources = []
    for index, each in enumerate(wire.get("resources") or ()):
        if not isinstance(each, dict):
            raise BadPolicy(f"{path}.resources[{index}]: must be a mapping with group and resources")
        names = frozenset(each.get("resourceNames") or ())
        resources.append((each.get("group") or "", frozenset(each.get("resources") or ()), names))
    return Rule(
        level=wire["level"],
        users=frozenset(wire.get("users") or ()),
        groups=frozenset(wire.get("userGroups") or ()),
        verbs=frozenset(wire.get("verbs") or ()),
        resources=tuple(resources),
        namespaces=frozenset(wire.get("namespaces") or ()),
        urls=tuple(wire.get("nonResourceURLs") or ()),
    )


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
    """A request, as far as the log tells of it. `acting_as`: the identity it impersonates."""

    request: web.BaseRequest
    user: User
    verb: str
    target: Target | None
    received: float
    acting_as: User | None = None


@dataclass
class AuditLog:
    """One file. `run` writes; without it `record` writes at once."""

    settings: AuditSettings
    _pending: list[bytes] = field(default_factory=list)
    _pending_bytes: int = 0
    _running: bool = False
    failures: int = 0

    @property
    def wanted(self) -> bool:
        return self.settings.path is not None

    def record(self, asked: Asked, answer: Answer) -> None:
        """Logs a request that has been answered, if the policy says so."""
        level = self._level(asked, answer.status)
        if level == "None":
            return
        line = orjson.dumps(_event(asked, answer, level)) + b"\n"
        self._pending.append(line)
        self._pending_bytes += len(line)
        if not self._running or self._pending_bytes > AT_ONCE_BYTES:
            self._write(self._taken())

    def _level(self, asked: Asked, status: int) -> str:
        rules = self.settings.rules
        if rules is None:
            return _usual_level(asked, status)
        path = asked.request.path
        user = asked.user
        return next((rule.level for rule in rules if rule.matches(user, asked.verb, asked.target, path)), "None")

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
    if target is None or asked.verb in _READS or target.resource in _HUM or target.resource in _REVIEWS:
        return "None"
    return "None" if asked.user.node and target.subresource == "status" else "Metadata"


def _event(asked: Asked, answer: Answer, level: str) -> Object:
    request, target = asked.request, asked.target
    event: Object = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level,
        "auditID": new_uid(),
        "stage": "ResponseComplete",
        "requestURI": request.raw_path,
        "verb": asked.verb,
        "user": _user(asked.user),
        "sourceIPs": [request.remote or ""],
        "responseStatus": _status(answer),
        "requestReceivedTimestamp": _time(asked.received),
        "stageTimestamp": _time(time.time()),
    }
    if agent := request.headers.get("User-Agent"):
        event["userAgent"] = agent
    if asked.acting_as is not None:
        event["impersonatedUser"] = _user(asked.acting_as)
    if target is not None:
        event["objectRef"] = _reference(target)
    if level in ("Request", "RequestResponse"):
        if (sent := _shown(request.get(BODY), target)) is not None:
            event["requestObject"] = sent
        answered = answer.body if level == "RequestResponse" and isinstance(answer, Reply) else None
        if (told := _shown(answered, target)) is not None:
            event["responseObject"] = told
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


def _status(answer: Answer) -> Object:
    status: Object = {"metadata": {}, "code": answer.status}
    if isinstance(answer, Reply) and answer.status >= 400:
        with contextlib.suppress(orjson.JSONDecodeError):
            told = orjson.loads(answer.body)
            if isinstance(told, dict):
                status |= {name: told[name] for name in ("status", "message", "reason") if name in told}
    return status


def _reference(target: Target) -> Object:
    named = {
        "resource": target.resource,
        "namespace": target.namespace,
        "name": target.name,
        "apiGroup": target.group,
        "apiVersion": target.version,
        "subresource": target.subresource,
    }
    return {name: value for name, value in named.items() if value}


def _shown(body: bytes | None, target: Target | None) -> Any:
    """A body as the log may hold it: parsed, secrets taken out; None for what is no JSON, or nothing."""
    try:
        parsed = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
    if target is None:
        return parsed
    resource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
    return _redacted(parsed) if (target.group, resource) in _SECRET else parsed


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
        elif name == "token" and isinstance(item, str):
            shown[name] = "<redacted>"
        elif name == "annotations" and isinstance(item, Mapping):
            last = "kubectl.kubernetes.io/last-applied-configuration"
            shown[name] = {key: "<redacted>" if key == last else text for key, text in item.items()}
        else:
            shown[name] = _redacted(item)
    return shown
