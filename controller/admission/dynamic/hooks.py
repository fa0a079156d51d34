"""Webhooks: configurations are read from the cache, matched, called, and believed.

Called by the chain: `mutate` after built-in admission, `validate` when the object is final. Configurations are taken in
the order of their names, mutating webhooks one after another (each sees what the one before made of the object),
validating ones all at once. Invariant: a failing webhook refuses the write unless its failurePolicy is Ignore.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from api.errors import ApiError, BadRequest, InternalError
from api.kinds import Kind
from api.objects import Object, clone
from api.patch import json_patch
from api.schema import check, default
from api.schema.facts import struct_named
from controller.admission.attributes import Attributes, Reader, Translator
from controller.admission.dynamic.expressions import Failed, Scope, first_false
from controller.admission.dynamic.matching import GROUP, as_kind, matching_kind
from controller.admission.dynamic.review import (
    VERSIONS,
    Malformed,
    call_failed,
    denial,
    patch_of,
    request_of,
    response_of,
    review_of,
)

MUTATING = (GROUP, "mutatingwebhookconfigurations")
VALIDATING = (GROUP, "validatingwebhookconfigurations")
_log = structlog.get_logger()


class Unreached(Exception):
    """A webhook gave no usable answer; the message says why."""


class Caller(Protocol):
    """How reviews are delivered."""

    async def call(self, client_config: Mapping[str, Any], review: Object, timeout_seconds: float) -> Any:
        """The parsed answer. Raises Unreached."""
        ...


@dataclass(frozen=True)
class Hook:
    """One webhook of one configuration; `kind` is how it is shown the objects of a write."""

    name: str
    config: Mapping[str, Any]
    kind: Kind

    @property
    def ignores_failure(self) -> bool:
        return self.config.get("failurePolicy") == "Ignore"

    @property
    def version(self) -> str:
        """The newest review version both sides know."""
        known = self.config.get("admissionReviewVersions") or ()
        return next((version for version in known if version in VERSIONS), "v1")


@dataclass(frozen=True)
class Hooks:
    """All webhooks of the cluster, as the cache knows them."""

    reader: Reader
    caller: Caller
    translator: Translator | None = None

    async def mutate(self, attributes: Attributes) -> None:
        """Lets mutating webhooks change the object, in place. Raises ApiError."""
        changed_after: list[Hook] = []
        hooks = await self._matching(attributes, MUTATING)
        for hook in hooks:
            if await self._mutate(attributes, hook):
                changed_after = [each for each in hooks[: hooks.index(hook)] if _wants_again(each)]
        for hook in changed_after:
            await self._mutate(attributes, hook)

    async def validate(self, attributes: Attributes) -> None:
        """Asks validating webhooks, all at once. Raises what the first refusal says."""
        hooks = await self._matching(attributes, VALIDATING)
        if not hooks:
            return
        outcomes = await asyncio.gather(*(self._validate(attributes, hook) for hook in hooks), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _matching(self, attributes: Attributes, resource: tuple[str, str]) -> list[Hook]:
        found = []
        for record in sorted(self.reader.list(resource).records, key=lambda record: record.key.name):
            for config in record.parse().get("webhooks") or ():
                kind = matching_kind(attributes, config, config.get("rules") or (), self.reader)
                if kind is None:
                    continue
                hook = Hook(config["name"], config, kind)
                if not config.get("matchConditions") or self._meets(await self._shown(attributes, hook), hook):
                    found.append(hook)
        return found

    async def _shown(self, attributes: Attributes, hook: Hook) -> Attributes:
        return await as_kind(attributes, hook.kind, self.translator)

    def _meets(self, attributes: Attributes, hook: Hook) -> bool:
        """The match conditions. Raises Forbidden when they cannot be evaluated and failures are not ignored."""
        conditions = hook.config.get("matchConditions") or ()
        values = {"object": attributes.obj, "oldObject": attributes.old, "request": request_of(attributes)}
        try:
            return not first_false(Scope(values), conditions)
        except Failed as error:
            if hook.ignores_failure:
                return False
            raise attributes.forbidden(f'webhook "{hook.name}": a matchCondition failed: {error}') from error

    async def _mutate(self, attributes: Attributes, hook: Hook) -> bool:
        """Whether the object changed."""
        shown = await self._shown(attributes, hook)
        response, obj = await self._ask(shown, hook), attributes.obj
        if response is None or obj is None:
            return False
        try:
            patch = patch_of(response)
        except Malformed as error:
            return self._failed(hook, str(error))
        if not patch:
            return False
        before = clone(obj)
        patched = self._patched(shown, hook, patch)
        if shown is not attributes and self.translator is not None and attributes.form is None:
            patched = await self.translator.translate(hook.kind, attributes.kind, patched)
        obj.clear()
        obj.update(patched)
        return bool(obj != before)

    def _patched(self, attributes: Attributes, hook: Hook, patch: list[Any]) -> Object:
        assert attributes.obj is not None
        try:
            wanted = json_patch(clone(attributes.obj), patch)
        except ApiError as error:
            raise InternalError(f'Internal error occurred: webhook "{hook.name}": {error.message}') from error
        form = attributes.form
        known = form is not None and struct_named(form.group, form.version, form.kind) is not None
        if attributes.subresource and not known:
            return wanted
        kind = form or attributes.kind
        checked = check(kind, wanted)
        if checked.type_errors:
            why = f'webhook "{hook.name}" made an object that cannot be read: {checked.type_errors[0]}'
            raise InternalError(f"Internal error occurred: {why}")
        default(kind, checked.obj)
        return checked.obj

    async def _validate(self, attributes: Attributes, hook: Hook) -> None:
        await self._ask(await self._shown(attributes, hook), hook)

    async def _ask(self, attributes: Attributes, hook: Hook) -> Mapping[str, Any] | None:
        """The response of a webhook that allows the write; None when it failed and that is ignored."""
        if attributes.request.dry_run and hook.config.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        review = review_of(attributes, hook.version)
        seconds = float(hook.config.get("timeoutSeconds") or 10)
        try:
            answer = await self.caller.call(hook.config.get("clientConfig") or {}, review, seconds)
            response = response_of(review, answer)
        except Unreached as error:
            self._failed(hook, f"failed to call webhook: {error}")
            return None
        except Malformed as error:
            self._failed(hook, str(error))
            return None
        for text in response.get("warnings") or ():
            if isinstance(text, str) and text not in attributes.request.warnings:
                attributes.request.warnings.append(text)
        if not response.get("allowed"):
            raise denial(hook.name, response)
        return response

    def _failed(self, hook: Hook, why: str) -> bool:
        """Raises InternalError unless failures of this webhook are ignored."""
        if not hook.ignores_failure:
            raise call_failed(hook.name, why)
        _log.warning("a webhook failed and is ignored", webhook=hook.name, error=why)
        return False


def _wants_again(hook: Hook) -> bool:
    return hook.config.get("reinvocationPolicy") == "IfNeeded"
