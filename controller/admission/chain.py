"""The admission chain: what every write has to pass between defaulting and validation.

Called by the registry for create, update, delete and connect. Order: who may (node restriction), where (namespace
lifecycle), then what the object is given (service account, priority, limits, tolerations, taint, ingress class,
finalizers that protect storage), at last whether what came of it is secure enough. Invariant: after `admit` the object
changes only in its strategy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.admission.attributes import Attributes, Operation, Reader
from controller.admission.certificates import REQUESTS, admit_signing_request
from controller.admission.ingress_class import INGRESSES, set_ingress_class
from controller.admission.limit_ranges import CLAIMS, admit_within_limits
from controller.admission.namespaces import admit_into_namespace, admit_namespace_deletion
from controller.admission.node_restriction import restrict_node
from controller.admission.pod_security import admit_secure
from controller.admission.pods import add_default_tolerations, set_priority, taint_new_node
from controller.admission.service_accounts import admit_service_account
from controller.admission.storage import protect
from controller.store.types import Guard

Check = Callable[[Attributes], None]
"""A further rule, raising ApiError: how the server plugs in what only it can judge (RBAC escalation)."""


@dataclass(frozen=True)
class Chain:
    reader: Reader
    checks: tuple[Check, ...] = ()

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
        admit_secure(attributes, self.reader)
