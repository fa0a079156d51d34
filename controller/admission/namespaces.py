"""Namespace lifecycle: nothing is created in a namespace that is missing or on its way out.

Called by the chain for every write. The namespace is judged by the cache, and the judgement is made to hold by a
guard: the write commits only while the namespace is what was judged. Rules from the admission plugin
NamespaceLifecycle (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/).
"""

from __future__ import annotations

from api.errors import Cause, not_found
from controller.admission.attributes import Attributes, Operation, Reader
from controller.admission.pods import SYSTEM_PRIORITIES
from controller.store.types import Guard, Key, Record

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


def namespace_key(name: str) -> Key:
    return Key("", "namespaces", "", name)


def admit_namespace_deletion(attributes: Attributes) -> None:
    """Refuses to delete the namespaces and priorities a cluster cannot live without. Raises Forbidden."""
    if attributes.kind.resource == ("", "namespaces") and attributes.name in IMMORTAL:
        raise attributes.forbidden("this namespace may not be deleted")
    if attributes.kind.resource == ("scheduling.k8s.io", "priorityclasses") and attributes.name in SYSTEM_PRIORITIES:
        raise attributes.forbidden("this is a system priority class and cannot be deleted")


async def admit_into_namespace(attributes: Attributes, reader: Reader) -> tuple[Guard, ...]:
    """The guards under which a create in this namespace stays lawful.

    Raises NotFound for a missing namespace, Forbidden with cause NamespaceTerminating for one being deleted.
    """
    if not attributes.namespace or attributes.subresource or attributes.operation is not Operation.CREATE:
        return ()
    key = namespace_key(attributes.namespace)
    record = reader.get(key) or await reader.read(key)
    if record is None:
        raise not_found("", "namespaces", attributes.namespace)
    if _is_terminating(record):
        raise _terminating(attributes)
    return (Guard.unchanged(key, record.version),)


def _is_terminating(namespace: Record) -> bool:
    return namespace.fields.get("status.phase") == "Terminating"


def _terminating(attributes: Attributes) -> Exception:
    where = attributes.namespace
    cause = Cause("NamespaceTerminating", f"namespace {where} is being terminated", "metadata.namespace")
    return attributes.forbidden(
        f"unable to create new content in namespace {where} because it is being terminated", cause
    )
