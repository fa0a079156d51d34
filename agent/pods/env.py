"""A container's environment: references resolved, `$(VAR)` expanded. Pure.

`references` says which ConfigMaps and Secrets are needed, the worker fetches them, `environment` makes the list. Rules:
kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables.
"""

from __future__ import annotations

import base64
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.pods.fields import Facts, UnknownField, field_value, resource_value
from api.objects import Object, namespace_of

SourceKind = Literal["configmap", "secret"]
Source = tuple[SourceKind, str]
Sources = Mapping[Source, Object | None]
"""(kind, name) -> the object as the API serves it, or None when there is none."""


LONGEST_CHARACTERS = 1 << 17
"""Linux' MAX_ARG_STRLEN: no program is started with a longer variable or argument."""


class ConfigFault(Exception):
    """The container's configuration cannot be made now: CreateContainerConfigError, with this message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def references(container: Mapping[str, Any]) -> set[Source]:
    """The ConfigMaps and Secrets that the environment of a container is made of."""
    return set(_references(container))


def _references(container: Mapping[str, Any]) -> Iterator[Source]:
    for entry in container.get("envFrom") or ():
        if entry.get("configMapRef"):
            yield "configmap", entry["configMapRef"]["name"]
        if entry.get("secretRef"):
            yield "secret", entry["secretRef"]["name"]
    for entry in container.get("env") or ():
        value_from = entry.get("valueFrom") or {}
        if value_from.get("configMapKeyRef"):
            yield "configmap", value_from["configMapKeyRef"]["name"]
        if value_from.get("secretKeyRef"):
            yield "secret", value_from["secretKeyRef"]["name"]


@dataclass(frozen=True)
class Surroundings:
    """What an environment is made of beside the pod: what it refers to, the node's facts, the services' variables."""

    sources: Sources
    facts: Facts
    services: Mapping[str, str] = field(default_factory=dict)


def environment(pod: Object, container: Mapping[str, Any], around: Surroundings) -> dict[str, str]:
    """Name -> value, in order. Raises ConfigFault for a missing object, key or field that is not optional.

    The services' variables come last, the pod's own win over them, and `$(VAR)` sees both.
    """
    sources, facts = around.sources, around.facts
    made: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        prefix = entry.get("prefix") or ""
        made.update({prefix + key: value for key, value in _whole(entry, sources).items()})
    for entry in container.get("env") or ():
        if entry.get("valueFrom"):
            value = _from(pod, container, entry["valueFrom"], sources, facts)
            if value is None:
                continue
        else:
            value = expand(entry.get("value") or "", ChainMap(made, dict(around.services)))
        made[entry["name"]] = value
    return {**made, **{name: value for name, value in around.services.items() if name not in made}}


def _whole(entry: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    kind: SourceKind = "configmap" if entry.get("configMapRef") else "secret"
    reference = entry.get("configMapRef") or entry.get("secretRef") or {}
    found = sources.get((kind, reference["name"]))
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigFault(f'{kind} "{reference["name"]}" not found')
    return texts_of(kind, found)


def texts_of(kind: SourceKind, found: Object) -> dict[str, str]:
    """The data of a ConfigMap or Secret as text."""
    data = found.get("data") or {}
    if kind == "configmap":
        return dict(data)
    return {key: base64.b64decode(value or "").decode("utf-8", "replace") for key, value in data.items()}


def _from(
    pod: Object, container: Mapping[str, Any], value_from: Mapping[str, Any], sources: Sources, facts: Facts
) -> str | None:
    try:
        if reference := value_from.get("fieldRef"):
            return field_value(pod, reference.get("fieldPath") or "", facts)
        if reference := value_from.get("resourceFieldRef"):
            return resource_value(pod, reference, facts, container["name"])
    except UnknownField as fault:
        raise ConfigFault(str(fault)) from fault
    if reference := value_from.get("configMapKeyRef"):
        return _key(pod, "configmap", reference, sources)
    if reference := value_from.get("secretKeyRef"):
        return _key(pod, "secret", reference, sources)
    raise ConfigFault("the environment variable's valueFrom names no source that this node knows")


def _key(pod: Object, kind: SourceKind, reference: Mapping[str, Any], sources: Sources) -> str | None:
    name, key, optional = reference["name"], reference["key"], bool(reference.get("optional"))
    found = sources.get((kind, name))
    if found is None:
        if optional:
            return None
        raise ConfigFault(f'{kind} "{name}" not found')
    texts = texts_of(kind, found)
    if key not in texts:
        if optional:
            return None
        title = "ConfigMap" if kind == "configmap" else "Secret"
        raise ConfigFault(f"couldn't find key {key} in {title} {namespace_of(pod)}/{name}")
    return texts[key]


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value if there is one, `$$` a dollar; everything else stays as written.

    Raises ConfigFault for what grows beyond what Linux passes to a program: each reference to a reference doubles it.
    """
    made, size = [], 0
    for piece, name in _pieces(text):
        made.append(piece if name is None else values.get(name, piece))
        size += len(made[-1])
        if size > max(LONGEST_CHARACTERS, len(text)):
            raise ConfigFault(
                f"with $(...) expanded, a variable or argument is longer than {LONGEST_CHARACTERS} characters"
            )
    return "".join(made)


def unset_in(text: str, values: Mapping[str, str]) -> list[str]:
    """The names that `$(NAME)` in `text` asks for and that have no value (an empty one is none), sorted."""
    return sorted({name for _, name in _pieces(text) if name is not None and not values.get(name)})


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """A text cut into what stands for itself (None) and the variables in it, as written and by name."""
    rest = text
    while True:
        before, dollar, rest = rest.partition("$")
        yield before, None
        if not dollar:
            return
        if rest.startswith("$"):
            yield "$", None
            rest = rest[1:]
        elif rest.startswith("(") and ")" in rest:
            name, _, rest = rest[1:].partition(")")
            yield f"$({name})", name
        else:
            yield "$", None
