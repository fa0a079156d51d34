"""CustomResourceDefinition: names, versions, subresources, columns. The schemas are judged in `schemas`.

Called by dispatch. Kubernetes judges what is equal in all versions once, as if it stood at the top of the spec; so do
the paths here. Source: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from api.errors import duplicate, forbidden, invalid, not_supported, required, too_many
from api.names import byte_length, is_dns_1035_label, is_dns_subdomain
from api.objects import annotations_of
from api.schema.custom.jsonpath import BadPath, parse_path
from controller.registry.validation.fieldpaths import BadFieldPath, schema_at
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import Errors, Value, check_immutable, go_form
from controller.registry.validation.schemas import check_schema
from controller.registry.validation.webhooks import check_bundle, check_client_config

_SCOPES = ("Cluster", "Namespaced")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_VERSION_FIELDS = (
    *("name", "served", "storage", "deprecated", "deprecationWarning"),
    *("schema", "subresources", "additionalPrinterColumns", "selectableFields"),
)
_SHARED = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
_APPROVED = "api-approved.kubernetes.io"
_APPROVAL = "https://github.com/kubernetes/enhancements/pull/1111"
_MOST_SELECTABLE, _LONGEST_WARNING = 8, 256
_NO_DOT = "must be a simple json path starting with ."
_CASE = "may have mixed case, but should otherwise match: "


def check_definition(errors: Errors, obj: Value) -> None:
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    wanted = f"{names.get('plural') or ''}.{spec.get('group') or ''}"

    def rule(name: str) -> list[str]:
        return [*is_dns_subdomain(name), *([] if name == wanted else ['must be spec.names.plural+"."+spec.group'])]

    check_metadata(errors, obj["metadata"], rule, namespaced=False, finalizers=False)
    _check_spec(errors, spec)
    _check_rest(errors, obj, None)


def check_definition_update(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"], finalizers=False)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    _check_spec(errors, spec, old)
    names, names_before = spec.get("names") or {}, before.get("names") or {}
    if _is_established(old):
        check_immutable(errors, "spec.scope", spec.get("scope"), before.get("scope"))
        check_immutable(errors, "spec.names.kind", names.get("kind"), names_before.get("kind"))
    check_immutable(errors, "spec.group", spec.get("group"), before.get("group"))
    check_immutable(errors, "spec.names.plural", names.get("plural"), names_before.get("plural"))
    _check_rest(errors, obj, old)


def check_definition_status(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"], finalizers=False)
    _check_names(errors, "status.acceptedNames", (obj.get("status") or {}).get("acceptedNames") or {})


def _check_rest(errors: Errors, obj: Value, old: Value | None) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    _check_names(errors, "status.acceptedNames", status.get("acceptedNames") or {})
    _check_stored(errors, status.get("storedVersions") or [], spec.get("versions") or [])
    _check_approval(errors, obj, old)
    if spec.get("preserveUnknownFields") and not (old and (old.get("spec") or {}).get("preserveUnknownFields")):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        errors.append(invalid("spec.preserveUnknownFields", True, detail))


def _check_approval(errors: Errors, obj: Value, old: Value | None) -> None:
    """Kubernetes' own groups are protected: definitions in them name the review that approved them."""
    group, text = (obj.get("spec") or {}).get("group") or "", annotations_of(obj).get(_APPROVED) or ""
    state = _approval(text)
    if not f".{group}".endswith((".k8s.io", ".kubernetes.io")) or state == "given":
        return
    if old is not None and state == _approval(annotations_of(old).get(_APPROVED) or ""):
        return
    path, why = f"metadata.annotations[{_APPROVED}]", f'protected groups must have approval annotation "{_APPROVED}"'
    if state == "missing":
        errors.append(required(path, f"{why}, see {_APPROVAL}"))
    else:
        how = 'with either a URL or a reason starting with "unapproved"'
        errors.append(invalid(path, text, f"{why} {how}, see {_APPROVAL}"))


def _approval(text: str) -> str:
    if not text:
        return "missing"
    try:
        url = urlsplit(text)
    except ValueError:
        return "wrong"
    return "given" if text.startswith("unapproved") or (url.scheme and url.netloc) else "wrong"


def _is_established(obj: Value) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions)


def _check_stored(errors: Errors, stored: list[str], versions: list[Value]) -> None:
    path, names = "status.storedVersions", [version.get("name") for version in versions]
    if not stored:
        errors.append(invalid(path, None, "must have at least one stored version"))
        return
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            errors.append(invalid(path, stored, f"must have the storage version {version.get('name')}"))
    for index, name in enumerate(stored):
        if name not in names:
            why = (
                f"until a storage migration ensures no data remains persisted in {name} and removes {name} from {path}"
            )
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions"
            )
            errors.append(invalid(f"{path}[{index}]", name, f"{detail} {why}"))


def _check_spec(errors: Errors, spec: Value, old: Value | None = None) -> None:
    _check_group(errors, spec.get("group") or "")
    scope = spec.get("scope") or ""
    if not scope:
        errors.append(required("spec.scope"))
    elif scope not in _SCOPES:
        errors.append(not_supported("spec.scope", scope, _SCOPES))
    versions = spec.get("versions") or []
    for index, version in enumerate(versions):
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            errors.append(required(f"spec.versions[{index}].schema.openAPIV3Schema"))
    keeps = bool(spec.get("preserveUnknownFields"))
    if keeps and any(_has_defaults((version.get("schema") or {}).get("openAPIV3Schema")) for version in versions):
        detail = "must be false in order to use defaults in the schema"
        errors.append(invalid("spec.preserveUnknownFields", True, detail))
    shared = {name for name in _SHARED if all(v.get(name) == versions[0].get(name) for v in versions)}
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        _check_label(errors, f"{path}.name", version.get("name") or "")
        _check_deprecation(errors, f"{path}.deprecationWarning", version)
        has_status = _has_status(versions[0] if "subresources" in shared else version)
        parts = {name: version.get(name) for name in _SHARED if name not in shared}
        _check_parts(errors, path, parts, schema=_schema_of(version), has_status=has_status)
    _check_versions(errors, versions, shared)
    names = spec.get("names") or {}
    errors += [
        required(f"spec.names.{name}") for name in ("plural", "singular", "kind", "listKind") if not names.get(name)
    ]
    _check_names(errors, "spec.names", names)
    if versions:
        parts = {name: versions[0].get(name) for name in shared}
        has_status = any(_has_status(version) for version in versions)
        _check_parts(errors, "spec", parts, schema=_schema_of(versions[0]), has_status=has_status)
    strategy = (spec.get("conversion") or {}).get("strategy") or "None"
    if keeps and strategy != "None":
        errors.append(
            invalid("spec.conversion.strategy", strategy, "must be None if spec.preserveUnknownFields is true")
        )
    _check_conversion(errors, spec.get("conversion") or {}, old)


def _check_group(errors: Errors, group: str) -> None:
    if not group:
        errors.append(required("spec.group"))
    elif faults := is_dns_subdomain(group):
        errors.append(invalid("spec.group", group, ",".join(faults)))
    elif "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))


def _check_label(errors: Errors, path: str, name: str, words: str = "", *, text: str | None = None) -> None:
    faults = is_dns_1035_label(name)
    if faults:
        errors.append(invalid(path, name if text is None else text, words + ",".join(faults)))


def _check_versions(errors: Errors, versions: list[Value], shared: set[str]) -> None:
    names = [version.get("name") for version in versions]
    shown = [go_form({k: v for k, v in version.items() if k not in shared}, _VERSION_FIELDS) for version in versions]
    for each in shown:
        each["Deprecated"] = bool(each["Deprecated"])
    if len(set(names)) < len(names):
        errors.append(invalid("spec.versions", shown, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        errors.append(invalid("spec.versions", shown, detail))
    if versions and versions[0].get("name"):
        _check_label(errors, "spec.version", versions[0]["name"])


def _check_names(errors: Errors, path: str, names: Value) -> None:
    for name in ("plural", "singular"):
        if names.get(name):
            _check_label(errors, f"{path}.{name}", names[name])
    for name in ("kind", "listKind"):
        if names.get(name):
            _check_label(errors, f"{path}.{name}", names[name].lower(), _CASE, text=names[name])
    for index, each in enumerate(names.get("shortNames") or ()):
        _check_label(errors, f"{path}.shortNames[{index}]", each)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))
    for index, each in enumerate(names.get("categories") or ()):
        _check_label(errors, f"{path}.categories[{index}]", each)


def _check_deprecation(errors: Errors, path: str, version: Value) -> None:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        errors.append(invalid(path, text, "can only be set for deprecated versions"))
        return
    if byte_length(text) > _LONGEST_WARNING:
        errors.append(invalid(path, text, f"must be <= {_LONGEST_WARNING} characters long"))
    if not text:
        errors.append(invalid(path, text, "must not be an empty string"))
    odd = next((index for index, letter in enumerate(text) if not letter.isprintable()), None)
    if odd is not None:
        what = f"non-printable character found at index {byte_length(text[:odd])}"
        errors.append(invalid(path, text, f"must only contain printable UTF-8 characters; {what}"))


def _has_status(version: Value) -> bool:
    return (version.get("subresources") or {}).get("status") is not None


def _schema_of(version: Value) -> dict[str, Any]:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _has_defaults(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(_has_defaults(each) for each in schema)
    if not isinstance(schema, dict):
        return False
    inner = (schema.get(name) for name in ("items", "additionalProperties", "not", "allOf", "anyOf", "oneOf"))
    below = (*inner, *(schema.get("properties") or {}).values())
    return schema.get("default") is not None or any(_has_defaults(each) for each in below)


def _check_parts(errors: Errors, path: str, parts: dict[str, Any], *, schema: dict[str, Any], has_status: bool) -> None:
    """What a version consists of, or at `spec` what is the same in all of them; `schema`: that of the version."""
    if (parts.get("schema") or {}).get("openAPIV3Schema") is not None:
        where = f"{path}.{'validation' if path == 'spec' else 'schema'}.openAPIV3Schema"
        errors += check_schema(schema, where, has_status=has_status)
    _check_subresources(errors, f"{path}.subresources", parts.get("subresources") or {})
    for index, column in enumerate(parts.get("additionalPrinterColumns") or ()):
        _check_column(errors, f"{path}.additionalPrinterColumns[{index}]", column)
    _check_selectable(errors, f"{path}.selectableFields", parts.get("selectableFields") or [], schema)


def _check_subresources(errors: Errors, path: str, subresources: Value) -> None:
    scale = subresources.get("scale")
    if scale is None:
        return
    for name, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(name) or ""
        if not value:
            errors.append(required(f"{path}.scale.{name}"))
        else:
            _check_plain_path(errors, f"{path}.scale.{name}", value, (root,))
    if selector := scale.get("labelSelectorPath"):
        _check_plain_path(errors, f"{path}.scale.labelSelectorPath", selector, (".spec.", ".status."))


def _check_plain_path(errors: Errors, path: str, value: str, roots: tuple[str, ...]) -> None:
    """A path of field names only, below spec or status."""
    try:
        steps = parse_path(value)
    except BadPath:
        steps = ()
    either = "either " if len(roots) > 1 else ""
    if not value.startswith("."):
        errors.append(invalid(path, value, _NO_DOT))
    elif not value.startswith(roots):
        where = f"{either}{' or '.join(root[:-1] for root in roots)}"
        errors.append(invalid(path, value, f"should be a json path under {where}"))
    elif not steps or any(step.how != "field" for step in steps):
        errors.append(invalid(path, value, "is an invalid json path"))


def _check_column(errors: Errors, path: str, column: Value) -> None:
    if not column.get("name"):
        errors.append(required(f"{path}.name"))
    kind = column.get("type") or ""
    if not kind:
        errors.append(required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}"))
    elif kind not in _COLUMN_TYPES:
        errors.append(invalid(f"{path}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}"))
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        errors.append(invalid(f"{path}.format", column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}"))
    text = column.get("jsonPath") or ""
    if not text:
        errors.append(required(f"{path}.JSONPath"))
    elif not text.startswith("."):
        errors.append(invalid(f"{path}.JSONPath", text, _NO_DOT))
    else:
        try:
            parse_path(text)
        except BadPath as fault:
            errors.append(invalid(f"{path}.JSONPath", text, f"is an invalid json path: {fault}"))


def _check_selectable(errors: Errors, path: str, fields: list[Value], schema: dict[str, Any]) -> None:
    if fields and not schema:
        detail = "may only be set when validations.schema is included"
        errors.append(invalid(path, "", detail))
        return
    seen: set[tuple[str, ...]] = set()
    for index, field in enumerate(fields):
        here, text = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not text:
            errors.append(required(here))
            continue
        try:
            names, found = schema_at(text, schema, quoted=False)
        except BadFieldPath as fault:
            errors.append(invalid(here, text, f"is an invalid path: {fault}"))
            continue
        if names[:1] == ("metadata",):
            errors.append(invalid(here, text, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            detail = "must point to a field of type string, boolean or integer."
            errors.append(invalid(here, text, f"{detail} Enum string fields and strings with formats are allowed."))
        if names in seen:
            errors.append(duplicate(here, text))
        seen.add(names)
    if len(seen) > _MOST_SELECTABLE:
        errors.append(too_many(path, len(seen), _MOST_SELECTABLE))


def _check_conversion(errors: Errors, conversion: Value, old: Value | None) -> None:
    """`old`: the definition before an update."""
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook")
    config, path = (webhook or {}).get("clientConfig"), "spec.conversion.webhookClientConfig"
    if not strategy:
        errors.append(required("spec.conversion.strategy"))
    elif strategy not in ("None", "Webhook"):
        errors.append(not_supported("spec.conversion.strategy", strategy, ("None", "Webhook")))
    reviews = (webhook or {}).get("conversionReviewVersions") or []
    if strategy != "Webhook":
        detail = "should not be set when strategy is not set to Webhook"
        if config is not None:
            errors.append(forbidden(path, detail))
        if reviews:
            errors.append(forbidden("spec.conversion.conversionReviewVersions", detail))
        return
    if config is None:
        errors.append(required(path, "required when strategy is set to Webhook"))
    else:
        check_client_config(errors, path, config)
        if not _may_be_unusable(old):
            check_bundle(errors, f"{path}.caBundle", config.get("caBundle") or "")
    known = old is None or _knows_reviews(_reviews_of(old) or ["v1"])
    _check_reviews(errors, "spec.conversion.conversionReviewVersions", reviews, known=known)


def _check_reviews(errors: Errors, path: str, versions: list[str], *, known: bool) -> None:
    """`known`: one of them has to be one that is understood here."""
    if not versions:
        errors.append(required(path))
        return
    first = {version: index for index, version in reversed([*enumerate(versions)])}
    for index, version in enumerate(versions):
        if first[version] < index:
            errors.append(invalid(f"{path}[{index}]", version, "duplicate version"))
        else:
            errors += [invalid(f"{path}[{index}]", version, fault) for fault in is_dns_1035_label(version)]
    if known and not _knows_reviews(versions):
        errors.append(invalid(path, versions, "must include at least one of v1, v1beta1"))


def _reviews_of(definition: Value) -> list[str]:
    webhook = (definition["spec"].get("conversion") or {}).get("webhook") or {}
    return webhook.get("conversionReviewVersions") or []


def _knows_reviews(versions: list[str]) -> bool:
    return not {"v1", "v1beta1"}.isdisjoint(versions)


def _may_be_unusable(old: Value | None) -> bool:
    """Whether the CA bundle may be anything: until the definition is established, and where it was so before."""
    if old is None or not _is_established(old):
        return True
    webhook = (old["spec"].get("conversion") or {}).get("webhook") or {}
    before: Errors = []
    check_bundle(before, "", (webhook.get("clientConfig") or {}).get("caBundle") or "")
    return bool(before)
