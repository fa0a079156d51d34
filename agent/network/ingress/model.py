"""An Ingress as the proxy needs it, read out of the API's object.

Called by the part's feeds. Pure. An Ingress that another controller serves is kept too: its class may become ours.
Annotations that count (all others are other controllers' and are ignored):

    wherry/ssl-redirect: "true"        plain HTTP is answered with a redirect (308) to HTTPS
    kubernetes.io/ingress.class        the old way to name a class

Fields: kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.network.model import Key, key_of
from api.ingress import LEGACY_ANNOTATION
from api.objects import Object, annotations_of, metadata, uid_of

SSL_REDIRECT = "wherry/ssl-redirect"


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service of the Ingress's namespace and its port, by number or by name. `service` "": a resource, not served."""

    service: str
    port: int | str = 0


@dataclass(frozen=True, slots=True)
class Path:
    """`exact`: this very path; else every path whose elements begin with this one's."""

    path: str
    exact: bool
    backend: Backend


@dataclass(frozen=True, slots=True)
class Rule:
    """`host` "" is any host."""

    host: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """`hosts` empty: those that the certificate itself names."""

    hosts: tuple[str, ...]
    secret: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """`created` is wire time, by which conflicts are settled. `class_name` None: the field is absent."""

    key: Key
    uid: str
    created: str
    class_name: str | None
    legacy_class: str
    rules: tuple[Rule, ...]
    default: Backend | None
    tls: tuple[Tls, ...]
    redirects: bool

    @property
    def age(self) -> tuple[str, Key]:
        """Sorts the older one first."""
        return self.created, self.key

    def wire_class(self) -> Object:
        """So much of the object as `api.ingress.is_ours` looks at."""
        return {
            "metadata": {"annotations": {LEGACY_ANNOTATION: self.legacy_class}},
            "spec": {"ingressClassName": self.class_name},
        }


def parse_ingress(obj: Object) -> Ingress:
    spec, annotations = obj.get("spec") or {}, annotations_of(obj)
    default = spec.get("defaultBackend")
    return Ingress(
        key=key_of(obj),
        uid=uid_of(obj),
        created=metadata(obj).get("creationTimestamp") or "",
        class_name=spec.get("ingressClassName"),
        legacy_class=annotations.get(LEGACY_ANNOTATION) or "",
        rules=tuple(_rule(rule) for rule in spec.get("rules") or ()),
        default=None if default is None else _backend(default),
        tls=tuple(Tls(tuple(tls.get("hosts") or ()), tls.get("secretName") or "") for tls in spec.get("tls") or ()),
        redirects=annotations.get(SSL_REDIRECT) == "true",
    )


def _rule(rule: Mapping[str, Any]) -> Rule:
    paths = (rule.get("http") or {}).get("paths") or ()
    return Rule(rule.get("host") or "", tuple(_path(path) for path in paths))


def _path(path: Mapping[str, Any]) -> Path:
    return Path(path.get("path") or "/", path.get("pathType") == "Exact", _backend(path.get("backend") or {}))


def _backend(backend: Mapping[str, Any]) -> Backend:
    service = backend.get("service") or {}
    port = service.get("port") or {}
    return Backend(service.get("name") or "", port.get("name") or port.get("number") or 0)
