"""Which writes a webhook or a policy is about: rules, namespace and object selectors.

Called by `hooks` and `policies`. Pure but for looking up the namespace. Rules:
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api.selectors import from_object
from controller.admission.attributes import Attributes, Reader
from controller.admission.namespaces import namespace_key

GROUP = "admissionregistration.k8s.io"
"""What decides about writes is never decided about, so that a bad configuration can always be removed."""
_NAMESPACES = ("", "namespaces")


def matches(
    attributes: Attributes, source: Mapping[str, Any], rules: Iterable[Mapping[str, Any]], reader: Reader
) -> bool:
    """Whether a write is matched by any of the rules and by the selectors of `source`."""
    exact = source.get("matchPolicy") == "Exact"
    if attributes.kind.group == GROUP or not rule_matches_any(attributes, rules, exact=exact):
        return False
    return _namespace_selected(attributes, source.get("namespaceSelector"), reader) and _object_selected(
        attributes, source.get("objectSelector")
    )


def rule_matches_any(attributes: Attributes, rules: Iterable[Mapping[str, Any]], *, exact: bool = False) -> bool:
    """`exact`: a rule about another version of the resource is not about this one."""
    return any(_rule_matches(attributes, rule, exact) for rule in rules)


def _rule_matches(attributes: Attributes, rule: Mapping[str, Any], exact: bool) -> bool:
    kind = attributes.kind
    operations = rule.get("operations") or ()
    if "*" not in operations and attributes.operation.value not in operations:
        return False
    if not _names(rule.get("apiGroups"), kind.group):
        return False
    if exact and not _names(rule.get("apiVersions"), kind.version):
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
