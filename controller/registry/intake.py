"""The first steps of a write: is it decodable, does it name itself rightly, what are its defaults.

Called by create, update and patch. Pure. What the schema does not know becomes a 400, a warning or nothing, as the
request's fieldValidation says (https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from api.codec import Decoded, decode_body
from api.errors import BadRequest, FieldError, invalid_object
from api.kinds import Kind
from api.objects import Object
from api.schema import check, default, idle, unimplemented
from controller.admission.types import Request
from controller.registry.types import Target
from controller.registry.validation import validate
from controller.registry.validation.advice import advice

ASIDE_BYTES = 32 * 1024
LARGE_BYTES = 64 * 1024
"""Of an object that is judged beside the event loop."""
ASIDE_YAML_BYTES = 4 * 1024
"""Every two bytes of YAML may be a value that costs ten microseconds."""
_MOST_FINDINGS = 100
Result = TypeVar("Result")
_YAML_FAULTS = "yaml: unmarshal errors:"


async def decode(body: bytes, content_type: str, kind: Kind | None) -> Decoded:
    """`decode_body`, for large bodies beside the event loop: a megabyte of YAML or protobuf may take seconds."""
    if len(body) <= (ASIDE_YAML_BYTES if "yaml" in content_type else ASIDE_BYTES) or "json" in content_type:
        return decode_body(body, content_type, kind)
    return await asyncio.to_thread(decode_body, body, content_type, kind)


async def aside(large: bool, work: Callable[[], Result]) -> Result:
    """Does what takes long with a large object beside the event loop: a megabyte of small fields is half a second of
    schema, rules and ownership. The object is the caller's alone; what is written is compared and set as ever."""
    return await asyncio.to_thread(work) if large else work()


def take_in(request: Request, kind: Kind, obj: Object) -> Object:
    """Checks, prunes and defaults a decoded body; the result has a metadata. Raises BadRequest."""
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    if request.trusted:
        default(kind, obj)
        return obj
    taken = _walk(request, kind, obj)
    default(kind, taken)
    return taken


def take_in_known(request: Request, kind: Kind, obj: Object, spec: Object) -> Object:
    """`take_in` of an object whose spec is known: only the rest is checked. Raises BadRequest."""
    rest = {"kind": kind.kind, "apiVersion": obj.get("apiVersion", kind.api_version), "metadata": obj["metadata"]}
    taken = rest if request.trusted else _walk(request, kind, rest)
    taken["spec"] = spec
    return taken


def _walk(request: Request, kind: Kind, obj: Object) -> Object:
    checked = check(kind, obj)
    if checked.type_errors:
        raise undecodable(kind, checked.type_errors[0])
    if request.duplicates or checked.unknown:
        found = _body_findings(request, kind, checked.unknown)
        if request.field_validation == "Strict":
            raise undecodable(kind, "strict decoding error: " + ", ".join(found))
        warn(request, found)
    taken: Object = checked.obj
    taken.setdefault("metadata", {})
    return taken


def undecodable(kind: Kind, why: str) -> BadRequest:
    return BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


def _body_findings(request: Request, kind: Kind, unknown: list[str]) -> list[str]:
    """Of a whole body, in the order of Kubernetes' decoders.

    YAML is decoded strictly before its JSON is; a custom object's duplicates are found before its schema is asked;
    a built-in kind's decoder names what it does not know first, and does not look into it.
    """
    if request.repeated:
        return strict_findings((), unknown, repeated=request.repeated)
    if kind.custom is not None:
        return strict_findings(request.duplicates, unknown)
    below = tuple(path + end for path in unknown for end in (".", "["))
    repeated = [path for path in request.duplicates if path not in unknown and not path.startswith(below)]
    found = strict_findings((), unknown) + strict_findings(repeated, ())
    return found[:_MOST_FINDINGS]


def strict_findings(duplicates: Iterable[str], unknown: Iterable[str], *, repeated: Iterable[str] = ()) -> list[str]:
    """What is wrong with a body only if one is strict: at most _MOST_FINDINGS of it, as Go's decoder.

    `repeated`: duplicates as the YAML decoder says them, which makes one finding of them.
    """
    found = [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]
    lines = [_YAML_FAULTS, *(f"  {line}" for line in repeated)]
    return [*(["\n".join(lines)] if len(lines) > 1 else []), *found][:_MOST_FINDINGS]


def warn(request: Request, findings: Iterable[str]) -> None:
    """A header has one line, so each of the YAML decoder's is a warning of its own."""
    if request.field_validation == "Ignore":
        return
    warnings: list[str] = []
    for finding in findings:
        yaml = finding.startswith(_YAML_FAULTS)
        warnings += [line.strip() for line in finding.splitlines()[1:]] if yaml else [finding]
    request.warnings[:] = dict.fromkeys([*request.warnings, *warnings])


def settle_namespace(target: Target, obj: Object) -> None:
    """The object's namespace is the URL's. Raises BadRequest when the body names another one."""
    metadata = obj["metadata"]
    given = metadata.get("namespace") or ""
    if given == target.namespace:
        return
    if not target.namespace:
        metadata.pop("namespace", None)
    elif not given:
        metadata["namespace"] = target.namespace
    else:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def check_name(target: Target, obj: Object) -> None:
    """The new object is the one of the URL. Raises BadRequest."""
    settle_namespace(target, obj)
    name = obj["metadata"].get("name") or ""
    if not name:
        raise BadRequest(
            f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided"
        )
    if name != target.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({target.name})")


def judge(request: Request, target: Target, obj: Object, old: Object | None) -> None:
    """Raises Invalid; warns of what is legal but unwise. `target` names the subresource, which is judged as a whole."""
    kind, subresource = target.kind, "" if target.subresource == "scale" else target.subresource
    errors = validate(kind, obj, old, subresource=subresource)
    warnings: list[str] = []
    if not target.subresource:
        warnings, refusals = _unimplemented(kind, obj, old)
        errors = errors or refusals
    refuse(kind, target.name, errors)
    if not target.subresource:
        request.warnings.extend(advice(kind, obj, old))
        warn(request, warnings)


def _unimplemented(kind: Kind, obj: Object, old: Object | None) -> tuple[list[str], list[FieldError]]:
    """Warnings of fields nothing acts on, and refusals of those whose neglect does harm. What `old` had is let be."""
    if old is not None and obj.get("spec") == old.get("spec"):
        return [], []
    warnings, refusals = unimplemented(kind, obj)
    if old is None or not (warnings or refusals):
        return warnings, refusals
    told, known = unimplemented(kind, old)
    return [one for one in warnings if one not in told], [one for one in refusals if one not in known]


def tell_idle(request: Request, kind: Kind) -> None:
    """Warns the maker of an object on which nothing acts."""
    warn(request, idle(kind))


def refuse(kind: Kind, name: str, errors: list[FieldError]) -> None:
    """Raises Invalid when there is anything to say."""
    if errors:
        raise invalid_object(kind.group, kind.kind, name, errors)
