"""Query parameters of the verbs: read, checked, refused with Kubernetes' words.

Called by the verb modules; pure. Rules: k8s.io/apimachinery/pkg/apis/meta/{v1,internalversion}/validation.
Invariant: an option that is not understood is refused, never ignored; selectors come out parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from api.errors import BadRequest, FieldError, Invalid, forbidden, invalid, invalid_object, required, too_long
from api.kinds import EVENT_FIELDS_STORED, Kind
from api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector

META = "meta.k8s.io"
FIELD_MANAGER_MAX = 128
_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")

Params = Mapping[str, str]


def parse_query(query: str) -> dict[str, str]:
    """The first value of every parameter, as Go's url.Values.Get."""
    params: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        params.setdefault(key, value)
    return params


def flag(params: Params, name: str) -> bool:
    """A boolean parameter: whatever is given is true, except 0 and false (k8s.io/apimachinery/pkg/runtime)."""
    return params.get(name, "0").lower() not in ("0", "false")


def whole(params: Params, name: str) -> int | None:
    """A whole number of 64 bits, as strconv.ParseInt reads it; None when the parameter is missing."""
    text = params.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text):
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


@dataclass(frozen=True)
class ListOptions:
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    match: str = ""
    watch: bool = False
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout_seconds: int | None = None

    @property
    def selects(self) -> bool:
        return self.labels is not None or self.fields is not None


NO_LIST_OPTIONS = ListOptions()


def list_options(params: Params, kind: Kind, *, watch: bool = False) -> ListOptions:
    """Reads the parameters of list, watch and deletecollection. Raises BadRequest or Invalid."""
    if not params and not watch:
        return NO_LIST_OPTIONS
    options = ListOptions(
        labels=_label_selector(params),
        fields=_field_selector(params, kind),
        limit=max(whole(params, "limit") or 0, 0),
        continue_token=params.get("continue", ""),
        resource_version=params.get("resourceVersion", ""),
        match=params.get("resourceVersionMatch", ""),
        watch=flag(params, "watch") or watch,
        bookmarks=flag(params, "allowWatchBookmarks"),
        initial_events=flag(params, "sendInitialEvents") if "sendInitialEvents" in params else None,
        timeout_seconds=whole(params, "timeoutSeconds"),
    )
    errors = _watch_errors(options) if options.watch else _list_errors(options)
    if errors:
        raise invalid_object(META, "ListOptions", "", errors)
    return options


def _label_selector(params: Params) -> LabelSelector | None:
    text = params.get("labelSelector")
    if not text:
        return None
    try:
        return parse_label_selector(text)
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _field_selector(params: Params, kind: Kind) -> FieldSelector | None:
    text = params.get("fieldSelector")
    if not text:
        return None
    try:
        selector = parse_field_selector(text)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    for field in selector.fields:
        if not (field in kind.selectable_fields or _is_common(kind, field)):
            raise BadRequest(_unknown_field(kind, field))
    return selector.renamed(EVENT_FIELDS_STORED) if kind.resource == ("", "events") else selector


def _is_common(kind: Kind, field: str) -> bool:
    """Kinds without namespaces know the namespace's field only where they have no fields of their own."""
    special = kind.custom is not None or bool(kind.selectable_fields)
    return field in _COMMON_FIELDS and (kind.namespaced or not special or field != "metadata.namespace")


def _unknown_field(kind: Kind, field: str) -> str:
    if kind.kind == "Job":
        return f'field label "{field}" not supported for Job'
    if kind.selectable_fields or kind.custom is not None:
        return f"field label not supported: {field}"
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _list_errors(options: ListOptions) -> list[FieldError]:
    errors = []
    match = options.match
    if match:
        if not options.resource_version:
            errors.append(forbidden(_MATCH, f"{_MATCH} is forbidden unless resourceVersion is provided"))
        if options.continue_token:
            errors.append(forbidden(_MATCH, f"{_MATCH} is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            errors.append(_unsupported(_MATCH, f'"{match}"', ("Exact", "NotOlderThan", "")))
        if match == "Exact" and options.resource_version == "0":
            errors.append(forbidden(_MATCH, f'{_MATCH} "exact" is forbidden for resourceVersion "0"'))
    if options.initial_events is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


def _watch_errors(options: ListOptions) -> list[FieldError]:
    errors = []
    match = options.match
    if options.initial_events is not None and match != "NotOlderThan":
        errors.append(forbidden(_MATCH, f"sendInitialEvents requires setting {_MATCH} to NotOlderThan"))
    if match:
        if options.initial_events is None:
            errors.append(forbidden(_MATCH, f"{_MATCH} is forbidden for watch unless sendInitialEvents is provided"))
        if match != "NotOlderThan":
            errors.append(_unsupported(_MATCH, f'"{match}"', ("NotOlderThan",)))
        if options.continue_token:
            errors.append(forbidden(_MATCH, f"{_MATCH} is forbidden when continue is provided"))
    return errors


_MATCH = "resourceVersionMatch"


@dataclass(frozen=True)
class WriteOptions:
    """What create, update and patch share."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool | None = None


PLAIN_WRITE = WriteOptions()


def write_options(params: Params, options_kind: str, *, apply: bool = False) -> WriteOptions:
    """Reads the parameters of a write; `options_kind` is CreateOptions, UpdateOptions or PatchOptions.

    `apply`: the patch is a server-side apply. Raises Invalid.
    """
    if not params and not apply:
        return PLAIN_WRITE
    force = flag(params, "force") if "force" in params else None
    errors = []
    if options_kind == "PatchOptions":
        if apply and not params.get("fieldManager"):
            errors.append(required("fieldManager", "is required for apply patch"))
        if not apply and force is not None:
            errors.append(forbidden("force", "may not be specified for non-apply patch"))
    manager = params.get("fieldManager", "")
    if len(manager.encode("utf-8", "surrogatepass")) > FIELD_MANAGER_MAX:
        errors.append(too_long("fieldManager", manager, FIELD_MANAGER_MAX))
    for position, character in enumerate(manager):
        if not character.isprintable():
            place = len(manager[:position].encode("utf-8", "surrogatepass"))
            detail = f"invalid character U+{ord(character):04X} (at position {place})"
            errors.append(invalid("fieldManager", manager, detail))
    errors += _dry_run_errors([params["dryRun"]] if "dryRun" in params else [])
    validation = params.get("fieldValidation", "")
    if validation not in ("", "Ignore", "Warn", "Strict"):
        errors.append(_unsupported("fieldValidation", f'"{validation}"', ("", "Ignore", "Strict", "Warn")))
    if errors:
        raise invalid_object(META, options_kind, "", errors)
    return WriteOptions(bool(params.get("dryRun")), manager, validation or "Warn", force)


def delete_errors(propagation: str | None, orphan: bool | None, dry_run: list[str]) -> Invalid | None:
    """What is wrong with delete options, or None."""
    errors = []
    if orphan is not None and propagation is not None:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(invalid("propagationPolicy", propagation, detail))
    if propagation is not None and propagation not in ("Foreground", "Background", "Orphan"):
        supported = ("Foreground", "Background", "Orphan", "nil")
        errors.append(_unsupported("propagationPolicy", f'"{propagation}"', supported))
    errors += _dry_run_errors(dry_run)
    return invalid_object(META, "DeleteOptions", "", errors) if errors else None


def _dry_run_errors(values: list[str]) -> list[FieldError]:
    if not set(values) - {"All"}:
        return []
    return [_unsupported("dryRun", json.dumps(values, ensure_ascii=False, separators=(",", ":")), ("All",))]


def _unsupported(field: str, shown: str, supported: tuple[str, ...]) -> FieldError:
    """Like api.errors.not_supported, but with the order Kubernetes lists these choices in."""
    listed = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError(field, "FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {listed}")
