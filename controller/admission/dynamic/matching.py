"""Which writes a webhook or a policy is about, by rules and selectors, and in which version it is shown them.

Called by `hooks` and `policies`. Pure but for looking up the namespace and for conversions. Rules:
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from api.errors import InternalError, Unexplained
from api.kinds import Kind, cached_by_table, served_kinds
from api.objects import Object
from api.selectors import from_object
from controller.admission.attributes import Attributes, Reader, Translator
from controller.admission.namespaces import namespace_key

GROUP = "admissionregistration.k8s.io"
"""What decides about writes is never decided about, so that a bad configuration can always be removed."""
_NAMESPACES = ("", "namespaces")


def matching_kind(
    attributes: Attributes, source: Mapping[str, Any], rules: Iterable[Mapping[str, Any]], reader: Reader
) -> Kind | None:
    """As which kind a write is matched by a rule and by the selectors of `source`; None: it is not."""
    exact = source.get("matchPolicy") == "Exact"
    kind = None if attributes.kind.group == GROUP else ruled_kind(attributes, tuple(rules), exact=exact)
    if kind is None or not _namespace_selected(attributes, source.get("namespaceSelector"), reader):
        return None
    return kind if _object_selected(attributes, source.get("objectSelector")) else None


def ruled_kind(attributes: Attributes, rules: Sequence[Mapping[str, Any]], *, exact: bool = False) -> Kind | None:
    """The kind a rule names: that of the write if any does, else another version of it, unless `exact`."""
    if any(_rule_matches(attributes, attributes.kind, rule) for rule in rules):
        return attributes.kind
    for kind in () if exact or not rules else _equivalents(attributes.kind):
        if any(_rule_matches(attributes, kind, rule) for rule in rules):
            return kind
    return None


@cached_by_table
def _equivalents(kind: Kind) -> tuple[Kind, ...]:
    """The other versions and groups in which the objects of a kind are served."""
    return tuple(each for each in served_kinds() if each.resource == kind.resource and each is not kind and each.stored)


async def as_kind(attributes: Attributes, kind: Kind, translator: Translator | None) -> Attributes:
    """The write with its objects as another version shows them. Raises InternalError when that cannot be had."""
    if kind is attributes.kind or translator is None:
        return attributes
    if attributes.form is not None:
        return replace(attributes, kind=kind, requested=attributes.kind)

    async def shown(obj: Mapping[str, Any] | None) -> Object | None:
        return None if obj is None else await translator.translate(attributes.kind, kind, obj)

    try:
        obj, old = await shown(attributes.obj), await shown(attributes.old)
    except Unexplained as error:
        raise InternalError(f"Internal error occurred: {error.message}") from error
    return replace(attributes, kind=kind, obj=obj, old=old, requested=attributes.kind)


def _rule_matches(attributes: Attributes, kind: Kind, rule: Mapping[str, Any]) -> bool:
    operations = rule.get("operations") or ()
    if "*" not in operations and attributes.operation.value not in operations:
        return False
    if not _names(rule.get("apiGroups"), kind.group):
        return False
    if not _names(rule.get("apiVersions"), kind.version):
        return False
    scope = rule.get("scope") or "*"
    if scope != "*" and (scope == "Namespaced") is not kind.namespaced:
        return False
    names = rule.get("resourceNames")
    if names and attributes.name not in names:
        return False
    return any(_resource_matches(each, kind.plural, attributes.subresource) for each in rule.get("resources") or ())


def _names(wanted: Iterable[str] | None, value: str) -> bool:
    return any(each in ("*", value) for each in wanted or ())


def _resource_matches(wanted: str, plural: str, subresource: str) -> bool:
    resource, slash, sub = wanted.partition("/")
    if not slash:
        return not subresource and resource in ("*", plural)
    if resource not in ("*", plural):
        return False
    return sub == "*" if not subresource else sub in ("*", subresource)


def namespace_labels(attributes: Attributes, reader: Reader) -> Mapping[str, str] | None:
    """The labels of the write's namespace; for a Namespace its own. None: it is in no namespace."""
    if attributes.kind.resource == _NAMESPACES:
        return _labels(attributes.obj if attributes.obj is not None else attributes.old)
    if not attributes.namespace:
        return None
    record = reader.get(namespace_key(attributes.namespace))
    return record.labels if record is not None else {}


def _namespace_selected(attributes: Attributes, selector: Mapping[str, Any] | None, reader: Reader) -> bool:
    if not selector:
        return True
    labels = namespace_labels(attributes, reader)
    return labels is None or from_object(selector).matches(labels)


def _object_selected(attributes: Attributes, selector: Mapping[str, Any] | None) -> bool:
    if not selector:
        return True
    wanted = from_object(selector)
    found = [each for each in (attributes.obj, attributes.old) if each is not None]
    return any(wanted.matches(_labels(each)) for each in found)


def _labels(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((obj or {}).get("metadata") or {}).get("labels") or {}
