"""The EndpointSlice reconciler's eyes: run by the loop, one key a Service; `decide` is in slices.py."""

from __future__ import annotations

from collections.abc import Sequence

from controller.reconcilers.endpoints.draft import free_names, services_of, slices_of
from controller.reconcilers.endpoints.facts import SLICES, families, selector_of
from controller.reconcilers.endpoints.membership import EndpointPods, ServicePods
from controller.reconcilers.endpoints.slices import MANAGER, MOST_ENDPOINTS, Observed, decide
from controller.reconcilers.loop import Decision, Failure, Source, Watch
from controller.store import Store


class EndpointSliceReconciler:
    name = "endpointslice-controller"
    concurrency = 32

    def __init__(self, store: Store, pods: EndpointPods) -> None:
        self._store = store
        self._members = ServicePods(store, pods)

    def sources(self) -> Sequence[Source]:
        on_slice = Watch(SLICES.resource, lambda event: services_of(event, MANAGER))
        return (on_slice, *self._members.watches(nodes=True))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        """Slices of a Service that is gone are the garbage collector's; those of one whose selector was taken away stay
        as they are, as in Kubernetes."""
        service = self._members.service(key)
        if service is None or not selector_of(service):
            return None
        pods = self._members.pods_of(service)
        most_new = len(families(service)) * (len(pods) // MOST_ENDPOINTS + len({pod.ports for pod in pods}) + 1)
        return Observed(
            service=service,
            pods=pods,
            slices=slices_of(self._store, key, MANAGER),
            zones=self._members.zones_of(pods),
            names=free_names(self._store, service, most_new),
            failure=failure,
        )

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)
