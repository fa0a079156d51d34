"""ValidatingAdmissionPolicies: rules in CEL, put to work by their bindings.

Called by the chain when the object is final. A binding names a policy, where it holds, its parameters, and whether a
fault denies the write, warns, or is only noted. https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from api import kinds
from api.errors import Forbidden
from api.kinds import Kind
from api.objects import Object, name_of
from api.selectors import from_object
from controller.admission.attributes import Attributes, Reader, Translator
from controller.admission.dynamic.expressions import Failed, Scope, first_false
from controller.admission.dynamic.matching import GROUP, as_kind, matching_kind, ruled_kind
from controller.admission.dynamic.review import Denied, request_of
from controller.admission.namespaces import namespace_key
from controller.store.types import Key

POLICIES = (GROUP, "validatingadmissionpolicies")
BINDINGS = (GROUP, "validatingadmissionpolicybindings")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_log = structlog.get_logger()


@dataclass(frozen=True)
class Policies:
    reader: Reader
    translator: Translator | None = None

    async def judge(self, attributes: Attributes) -> None:
        """Evaluates every bound policy that is about this write. Raises Denied for the first that denies it."""
        bindings = self.reader.list(BINDINGS).records
        if not bindings:
            return
        for record in sorted(bindings, key=lambda record: record.key.name):
            binding = record.parse()
            policy_record = self.reader.get(Key(*POLICIES, "", binding["spec"].get("policyName") or ""))
            if policy_record is not None:
                await self._judge(attributes, policy_record.parse(), binding)

    async def _judge(self, attributes: Attributes, policy: Object, binding: Object) -> None:
        kind = self._concerned(attributes, policy["spec"].get("matchConstraints") or {})
        if kind is None:
            return
        resources = binding["spec"].get("matchResources")
        if resources is not None and self._concerned(attributes, resources, unnamed=True) is None:
            return
        attributes = await as_kind(attributes, kind, self.translator)
        for params in self._params(attributes, policy, binding):
            for reason, message in self._faults(attributes, policy, params):
                self._tell(attributes, policy, binding, reason, message)

    def _concerned(
        self, attributes: Attributes, constraints: Mapping[str, Any], *, unnamed: bool = False
    ) -> Kind | None:
        """As which kind the write is meant; None: it is not. `unnamed`: without rules every resource is meant."""
        rules, exact = constraints.get("resourceRules") or (), constraints.get("matchPolicy") == "Exact"
        if ruled_kind(attributes, constraints.get("excludeResourceRules") or (), exact=exact) is not None:
            return None
        everything = ({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*", "*/*"]},)
        return matching_kind(attributes, constraints, rules or (everything if unnamed else ()), self.reader)

    def _params(self, attributes: Attributes, policy: Object, binding: Object) -> Iterator[Object | None]:
        """The parameter objects; one None for a policy without. Raises Forbidden when they are needed and missing."""
        kind, reference = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if kind is None or reference is None:
            yield None
            return
        found = list(self._found(attributes, kind, reference))
        if not found and reference.get("parameterNotFoundAction", "Deny") == "Deny":
            why = f"no params found for policy binding with `{reference.get('parameterNotFoundAction', 'Deny')}` "
            where = f"ValidatingAdmissionPolicy '{name_of(policy)}' with binding '{name_of(binding)}'"
            raise attributes.forbidden(f"{where}: failed to configure binding: {why}parameterNotFoundAction")
        yield from found

    def _found(self, attributes: Attributes, kind: Mapping[str, Any], reference: Mapping[str, Any]) -> Iterator[Object]:
        group, _, version = (kind.get("apiVersion") or "").rpartition("/")
        row = kinds.by_gvk(group, version, kind.get("kind") or "")
        if row is None:
            return
        namespace = (reference.get("namespace") or attributes.namespace) if row.namespaced else ""
        if reference.get("name"):
            record = self.reader.get(Key(*row.resource, namespace, reference["name"]))
            if record is not None:
                yield record.parse()
            return
        selector = from_object(reference.get("selector") or {})
        for record in self.reader.list(row.resource).records:
            if (not row.namespaced or record.key.namespace == namespace) and selector.matches(record.labels):
                yield record.parse()

    def _faults(self, attributes: Attributes, policy: Object, params: Object | None) -> Iterator[tuple[str, str]]:
        """(reason, message) of every validation that does not hold."""
        spec = policy["spec"]
        definitions = tuple((each["name"], each["expression"]) for each in spec.get("variables") or ())
        scope = Scope(self._values(attributes, params), definitions)
        ignores = spec.get("failurePolicy") == "Ignore"
        try:
            if first_false(scope, spec.get("matchConditions") or ()):
                return
        except Failed as error:
            if not ignores:
                yield "", str(error)
            return
        for validation in spec.get("validations") or ():
            text = validation["expression"]
            try:
                if scope.holds(text):
                    continue
                yield validation.get("reason") or "Invalid", _message(scope, validation)
            except Failed as error:
                if not ignores:
                    yield "Invalid", f"expression '{text}' resulted in error: {error}"

    def _values(self, attributes: Attributes, params: Object | None) -> dict[str, Any]:
        record = self.reader.get(namespace_key(attributes.namespace)) if attributes.namespace else None
        return {
            "object": attributes.obj,
            "oldObject": attributes.old,
            "request": request_of(attributes),
            "params": params,
            "namespaceObject": record.parse() if record is not None else None,
        }

    def _tell(self, attributes: Attributes, policy: Object, binding: Object, reason: str, message: str) -> None:
        """Denies, warns or notes, as the binding says."""
        actions = binding["spec"].get("validationActions") or ()
        where = f"ValidatingAdmissionPolicy '{name_of(policy)}' with binding '{name_of(binding)}'"
        if "Deny" in actions:
            raise _denied(attributes.forbidden(f"{where} denied request: {message}"), reason or "Invalid", message)
        if "Warn" in actions:
            attributes.request.warnings.append(f"Validation failed for {where}: {message}")
        if "Audit" in actions:
            _log.info("a policy found fault", policy=name_of(policy), binding=name_of(binding), message=message)


def _message(scope: Scope, validation: Mapping[str, Any]) -> str:
    if expression := validation.get("messageExpression"):
        try:
            said = scope.evaluate(expression)
        except Failed:
            said = ""
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said.strip()
    return (validation.get("message") or "").strip() or f"failed expression: {validation['expression'].strip()}"


def _denied(refusal: Forbidden, reason: str, message: str) -> Denied:
    details = {**refusal.details, "causes": [{"message": message}]}
    return Denied({"message": refusal.message, "reason": reason, "code": _CODES.get(reason, 422), "details": details})
