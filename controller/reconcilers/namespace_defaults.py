"""What every namespace has: the ServiceAccount `default`, and the CA in the ConfigMap `kube-root-ca.crt`.

Run by the loop, one key a namespace. The decisions are pure. Rules: k8s.io/kubernetes pkg/controller/serviceaccount and
pkg/controller/certificates/rootcacertpublisher. Invariant: a namespace that is going gets nothing any more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from api import kinds
from api.objects import Object, is_deleting, name_of, uid_of
from controller.reconcilers.actions import Create, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch
from controller.reconcilers.views import Views
from controller.store.types import Event, EventType, Key

NAMESPACES = kinds.by_resource("", "namespaces")
SERVICE_ACCOUNTS = kinds.by_resource("", "serviceaccounts")
CONFIG_MAPS = kinds.by_resource("", "configmaps")
DEFAULT_ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
_CA_FIELD = "ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


@dataclass(frozen=True)
class Observed:
    """`present`: the object that the namespace should have."""

    namespace: Object
    present: Object | None


def decide_account(observed: Observed) -> Decision:
    if is_deleting(observed.namespace) or observed.present is not None:
        return NOTHING
    meta = {"name": DEFAULT_ACCOUNT, "namespace": name_of(observed.namespace)}
    return Decision((Create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),))


def decide_root_ca(observed: Observed, ca_pem: str) -> Decision:
    if is_deleting(observed.namespace):
        return NOTHING
    wanted = {_CA_FIELD: ca_pem}
    namespace = name_of(observed.namespace)
    annotations = {"kubernetes.io/description": _DESCRIPTION}
    if observed.present is None:
        meta = {"name": ROOT_CA, "namespace": namespace, "annotations": annotations}
        return Decision(
            (Create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": wanted}),)
        )
    if observed.present.get("data") == wanted:
        return NOTHING
    patch = {"metadata": {"annotations": annotations}}
    where = (CONFIG_MAPS, namespace, ROOT_CA, uid_of(observed.present))
    return Decision((Write(*where, merge=patch, replace={"data": wanted}),))


class _PerNamespace:
    """Looks at one named object of every namespace."""

    def __init__(self, views: Views, resource: tuple[str, str], name: str) -> None:
        self._views = views
        self._resource = resource
        self._name = name

    def sources(self) -> Sequence[Source]:
        return (Watch(NAMESPACES.resource, _namespace_name), Watch(self._resource, self._on_object))

    def observe(self, namespace: str) -> Observed | None:
        found = self._views.get(Key(*NAMESPACES.resource, "", namespace))
        if found is None:
            return None
        return Observed(found, self._views.get(Key(*self._resource, namespace, self._name)))

    def _on_object(self, event: Event) -> Iterable[Hashable]:
        key = event.record.key
        return (key.namespace,) if key.name == self._name else ()


def _namespace_name(event: Event) -> Iterable[Hashable]:
    return () if event.type is EventType.DELETED else (event.record.key.name,)


class DefaultServiceAccounts:
    name = "serviceaccount-controller"
    concurrency = 4

    def __init__(self, views: Views) -> None:
        self._namespaces = _PerNamespace(views, SERVICE_ACCOUNTS.resource, DEFAULT_ACCOUNT)

    def sources(self) -> Sequence[Source]:
        return self._namespaces.sources()

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del failure
        return self._namespaces.observe(key)

    def decide(self, observed: Observed) -> Decision:
        return decide_account(observed)


class RootCaPublisher:
    name = "root-ca-certificate-publisher-controller"
    concurrency = 4

    def __init__(self, views: Views, ca_pem: str) -> None:
        self._namespaces = _PerNamespace(views, CONFIG_MAPS.resource, ROOT_CA)
        self._ca_pem = ca_pem

    def sources(self) -> Sequence[Source]:
        return self._namespaces.sources()

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del failure
        return self._namespaces.observe(key)

    def decide(self, observed: Observed) -> Decision:
        return decide_root_ca(observed, self._ca_pem)
