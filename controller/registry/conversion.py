"""From one version of a custom kind to another: by name only, or as the definition's webhook says.

Called by `views`. An object is read as its own version has it (defaults, unknown fields gone), converted, and trimmed
to what the other version knows; objects that are converted together travel in few reviews. Invariant: a conversion
changes nothing of the metadata but labels and annotations. Raises ApiError only, worded as
k8s.io/apiextensions-apiserver/pkg/apiserver/conversion does; format of a review:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from prometheus_client import Counter, Histogram

from api.errors import FieldError, Unexplained
from api.kinds import Kind
from api.objects import Object
from api.schema.custom.type import Family, custom_of
from controller.admission.dynamic.hooks import Caller, Unreached
from controller.registry.validation.meta import check_annotations
from controller.registry.validation.rules import check_labels

WEBHOOK_SECONDS = 30.0
REVIEW_BYTES = 1 << 20
"""A review holds objects up to this size together, or one that is larger."""
REVIEW_OBJECTS = 500
_API = "apiextensions.k8s.io"
_SAME = (("name", "name"), ("namespace", "namespace"), ("uid", "UID"))
_CALL = "conversion_webhook_call_failure"
_PARTIAL = "conversion_webhook_partial_response_failure"
_INVALID = "conversion_webhook_invalid_converted_object_failure"
_requests = Counter(
    "apiserver_conversion_webhook_request_total", "Reviews sent to conversion webhooks.", ["result", "failure_type"]
)
_seconds = Histogram(
    "apiserver_conversion_webhook_duration_seconds",
    "Reviews sent to conversion webhooks.",
    ["result", "failure_type"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 60),
)
_by_definition = Histogram(
    "apiserver_crd_conversion_webhook_duration_seconds",
    "Conversions by webhooks.",
    ["crd_name", "from_version", "to_version", "succeeded"],
    buckets=[0.001 * 2**power for power in range(15)],
)


class _Refused(Exception):
    """The webhook's answer cannot be used; `kind` is the failure's type in metrics."""

    def __init__(self, why: str, kind: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True)
class Converter:
    """`caller` delivers reviews; without one, kinds with a conversion webhook are kept in one version only."""

    caller: Caller | None = None

    async def read(self, kind: Kind, objs: list[Object]) -> list[Object]:
        """Stored objects of a custom kind as `kind` shows them. Takes the objects over. Raises Unexplained."""
        family = _family(kind)
        for obj in objs:
            known = family.types.get(obj["apiVersion"])
            if known is not None:
                known.shape(obj)
                known.default(obj)
        return await self.convert(kind, objs)

    async def convert(self, kind: Kind, objs: list[Object]) -> list[Object]:
        """Objects of any version as `kind` has them, in their order. Takes them over. Raises Unexplained."""
        family, wanted = _family(kind), kind.api_version
        for obj in objs:
            if obj["apiVersion"] not in family.types:
                raise Unexplained(f"request to convert CR from an invalid group/version: {obj['apiVersion']}")
        others = [index for index, obj in enumerate(objs) if obj["apiVersion"] != wanted]
        if family.webhook is None:
            converted: Iterator[Object] = ({**objs[index], "apiVersion": wanted} for index in others)
        else:
            converted = iter(await self._by_webhook(family, wanted, [objs[index] for index in others]))
        found = list(objs)
        for index, obj in zip(others, converted, strict=True):
            family.types[wanted].shape(obj)
            found[index] = obj
        return found

    async def _by_webhook(self, family: Family, wanted: str, objs: list[Object]) -> list[Object]:
        converted: list[Object] = []
        for batch in _batches(objs):
            began = time.monotonic()
            failure = ""
            try:
                converted += await self._review(family, wanted, batch)
            except _Refused as error:
                failure = error.kind
                raise Unexplained(str(error)) from error
            finally:
                _observe(family, (batch[0]["apiVersion"], wanted), failure, time.monotonic() - began)
        return converted

    async def _review(self, family: Family, wanted: str, objs: list[Object]) -> list[Object]:
        """One call. Raises _Refused."""
        webhook = family.webhook or {}
        known = webhook.get("conversionReviewVersions") or ()
        version = next((each for each in known if each in ("v1", "v1beta1")), "v1")
        uid = str(uuid.uuid4())
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"{_API}/{version}",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objs},
        }
        subject = f"conversion webhook for {objs[0]['apiVersion']}, Kind={objs[0]['kind']}"
        try:
            if self.caller is None:
                raise Unreached("webhooks are not called here")
            answer = await self.caller.call(webhook.get("clientConfig") or {}, review, WEBHOOK_SECONDS)
            returned = _objects_of(answer, version, uid)
        except Unreached as error:
            raise _Refused(f"{subject} failed: {error}", _CALL) from error
        if len(returned) != len(objs):
            raise _Refused(f"{subject} returned {len(returned)} objects, expected {len(objs)}", _PARTIAL)
        places = [f"converted object at index {index}" for index in range(len(objs))] if len(objs) > 1 else ["object"]
        pairs = zip(objs, returned, strict=True)
        return [_checked(subject, where, wanted, pair) for where, pair in zip(places, pairs, strict=True)]


def in_version(kind: Kind, api_version: str) -> Kind:
    """A custom kind in another of its versions, as its definition was when `kind` was made."""
    return replace(kind, version=api_version.rpartition("/")[2], custom=_family(kind).types[api_version])


def _family(kind: Kind) -> Family:
    schema = custom_of(kind)
    assert schema is not None
    return schema.family


def _batches(objs: list[Object]) -> Iterator[list[Object]]:
    batch: list[Object] = []
    size = 0
    for obj in objs:
        weight = len(orjson.dumps(obj))
        if batch and (size + weight > REVIEW_BYTES or len(batch) == REVIEW_OBJECTS):
            yield batch
            batch, size = [], 0
        batch.append(obj)
        size += weight
    if batch:
        yield batch


def _observe(family: Family, versions: tuple[str, str], failure: str, seconds: float) -> None:
    source, target = (each.rpartition("/")[2] for each in versions)
    result = "failure" if failure else "success"
    _requests.labels(result, failure).inc()
    _seconds.labels(result, failure).observe(seconds)
    _by_definition.labels(family.name, source, target, "false" if failure else "true").observe(seconds)


def _objects_of(answer: Any, version: str, uid: str) -> list[Any]:
    """The converted objects of a review. Raises Unreached for one that is none, or that says no."""
    response = answer.get("response") if isinstance(answer, dict) else None
    if version == "v1" and isinstance(answer, dict):
        group, _, given = str(answer.get("apiVersion") or "").rpartition("/")
        found = f"{group}/{given}, Kind={answer.get('kind') or ''}"
        expected = f"{_API}/v1, Kind=ConversionReview"
        if found != expected:
            raise Unreached(f"expected webhook response of {expected}, got {found}")
    if not isinstance(response, dict):
        raise Unreached("no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise Unreached(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    status = result.get("status") if isinstance(result, dict) else ""
    if status != "Success":
        said = result.get("message") if isinstance(result, dict) else ""
        raise Unreached(str(said) if said else f"response.result.status was '{status or ''}', not 'Success'")
    objects = response.get("convertedObjects")
    return objects if isinstance(objects, list) else []


def _checked(subject: str, where: str, wanted: str, pair: tuple[Object, Any]) -> Object:
    """What the webhook made of an object, with the metadata it may not change put back. Raises _Refused."""
    original, converted = pair
    fault = _fault_of(wanted, original, converted)
    if fault:
        raise _Refused(f"{subject} returned invalid {where}: {fault}", _INVALID)
    metadata = {**original["metadata"]}
    for name in ("labels", "annotations"):
        metadata.pop(name, None)
        given = converted["metadata"].get(name)
        if given is None:
            continue
        fault = _map_fault(name, given, original["metadata"].get(name))
        if fault:
            of = f" in {where}" if where != "object" else ""
            raise _Refused(f"{subject} returned invalid metadata{of}: {fault}", _INVALID)
        metadata[name] = given
    # the version stands first, the metadata next: so the store keeps objects
    rest = {name: value for name, value in converted.items() if name not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": wanted, "kind": original["kind"], "metadata": metadata, **rest}


def _fault_of(wanted: str, original: Object, converted: Any) -> str:
    """Why a converted object is not the same object in the wanted version; "" when it is."""
    if not isinstance(converted, dict):
        return "it is no object"
    given, kind = converted.get("apiVersion") or "", converted.get("kind") or ""
    if given != wanted:
        return f"invalid groupVersion (expected {wanted}, received {given})"
    if kind != original["kind"]:
        return f"invalid kind (expected {original['kind']}, received {kind})"
    metadata = converted.get("metadata")
    if not isinstance(metadata, dict):
        return "missing metadata in converted object" if metadata is None else "invalid metadata in converted object"
    for name, shown in _SAME:
        before, after = original["metadata"].get(name) or "", metadata.get(name) or ""
        if before != after:
            return f"must have the same {shown}: {before} != {after}"
    return ""


def _map_fault(name: str, given: Any, before: Mapping[str, str] | None) -> str:
    """Why labels or annotations of a converted object cannot be; "" when they can."""
    if not isinstance(given, dict):
        return f"invalid metadata.{name} in converted object"
    for key, value in given.items():
        if not isinstance(value, str):
            return f"metadata.{name}[{key}] must be a string in converted object"
    if given == before:
        return ""
    errors: list[FieldError] = []
    if name == "labels":
        check_labels(errors, "metadata.labels", given)
    else:
        check_annotations(errors, "metadata.annotation", given)
    shown = [str(error) for error in errors]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]" if shown else ""
