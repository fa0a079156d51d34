"""The admission chain: what every write has to pass between defaulting and validation.

Called by the registry for create, update and delete, in two steps. `admit`: who may (node restriction), where
(namespace lifecycle), what the object is given (service account, priority, limits, tolerations, taint, ingress class,
finalizers that protect storage), what mutating webhooks make of it. `approve`, once the object is validated: whether it
is secure enough, policies, validating webhooks. Invariant: after `admit` the object changes only in its strategy.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.admission.attributes import Attributes, Operation, Reader, Translator
from controller.admission.certificates import REQUESTS, admit_signing_request
from controller.admission.dynamic.hooks import MUTATING, VALIDATING, Caller, Hooks
from controller.admission.dynamic.policies import BINDINGS, Policies
from controller.admission.ingress_class import INGRESSES, set_ingress_class
from controller.admission.limit_ranges import CLAIMS, admit_within_limits
from controller.admission.namespaces import admit_into_namespace, admit_namespace_deletion
from controller.admission.node_restriction import restrict_node
from controller.admission.pod_security import POD_PARTS, admit_secure
from controller.admission.pods import (
    CLASSES,
    add_default_tolerations,
    admit_runtime_class,
    refuse_second_default,
    set_priority,
    taint_new_node,
)
from controller.admission.service_accounts import admit_service_account
from controller.admission.storage import protect
from controller.store.types import Guard

Check = Callable[[Attributes], None]
"""A further rule, raising ApiError: how the server plugs in what only it can judge (RBAC escalation)."""


class Chain:
    """`caller` delivers reviews to webhooks; without one, webhooks are not called. `translator` shows webhooks and
    policies the version they are about."""

    def __init__(
        self,
        reader: Reader,
        checks: tuple[Check, ...] = (),
        caller: Caller | None = None,
        translator: Translator | None = None,
    ) -> None:
        self.reader = reader
        self.checks = checks
        self._hooks = Hooks(reader, caller, translator) if caller is not None else None
        self._policies = Policies(reader, translator)

    @property
    def mutates(self) -> bool:
        """Whether somebody's webhook may change what is written."""
        return self._hooks is not None and self.reader.count(MUTATING) > 0

    async def guards(self, attributes: Attributes) -> tuple[Guard, ...]:
        """Only the guards of `admit`, for a write that lost a race. Raises Forbidden, NotFound."""
        return await admit_into_namespace(attributes, self.reader)

    async def approve(self, attributes: Attributes) -> None:
        """The last word on a valid object. Raises Forbidden, and what policies and webhooks want raised."""
        if attributes.obj is not None and attributes.subresource in ("", *POD_PARTS):
            admit_secure(attributes, self.reader)
        if attributes.kind.resource == CLASSES and attributes.obj is not None:
            refuse_second_default(attributes, self.reader)
        if self.reader.count(BINDINGS):
            await self._policies.judge(attributes)
        if self._hooks is not None and self.reader.count(VALIDATING):
            await self._hooks.validate(attributes)

    async def admit(self, attributes: Attributes) -> tuple[Guard, ...]:
        """Admits one write; may change `attributes.obj`. Returns the guards that keep the verdict true at commit.

        Raises Forbidden, NotFound (namespace), and what the extra checks raise.
        """
        if attributes.request.user.node:
            restrict_node(attributes)
        if attributes.operation is Operation.DELETE:
            admit_namespace_deletion(attributes)
        guards = await admit_into_namespace(attributes, self.reader)
        if not attributes.subresource and attributes.obj is not None:
            await self._complete(attributes)
        elif attributes.is_pod and attributes.subresource == "resize":
            admit_within_limits(attributes, self.reader)
        if self._hooks is not None and self.mutates:
            await self._hooks.mutate(attributes)
        for check in self.checks:
            check(attributes)
        return guards

    async def _complete(self, attributes: Attributes) -> None:
        obj = attributes.obj
        assert obj is not None
        creates = attributes.operation is Operation.CREATE
        if attributes.is_pod:
            if creates:
                await admit_service_account(attributes, self.reader)
                set_priority(attributes, self.reader)
                admit_within_limits(attributes, self.reader)
            add_default_tolerations(obj)
            if creates:
                admit_runtime_class(attributes, self.reader)
        elif attributes.kind.resource == CLAIMS and creates:
            admit_within_limits(attributes, self.reader)
        elif attributes.kind.resource == ("", "nodes") and creates:
            taint_new_node(obj)
        elif attributes.kind.resource == INGRESSES and creates:
            set_ingress_class(obj, self.reader)
        elif attributes.kind.resource == REQUESTS and creates:
            admit_signing_request(attributes)
        if creates:
            protect(attributes, self.reader)
