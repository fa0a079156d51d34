"""All reconcilers of the controller, and what runs them.

Called by `controller.main` while this process leads. Imports every reconciler. Invariant: every write of a reconciler
carries the guards it was given, so that a former leader's writes fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller.admission.types import Request, User, utc_now
from controller.pki.authority import Authority
from controller.pki.tokens import TokenSigner
from controller.reconcilers.actions import Executor
from controller.reconcilers.bootstrap_tokens import BootstrapTokenCleaner
from controller.reconcilers.certificates import CertificateSigner
from controller.reconcilers.cluster_roles import ClusterRoleAggregation
from controller.reconcilers.daemonset_watch import DaemonSetReconciler
from controller.reconcilers.deployment_watch import DeploymentReconciler
from controller.reconcilers.disruption import DisruptionReconciler
from controller.reconcilers.endpoints.endpoints import EndpointsReconciler
from controller.reconcilers.endpoints.membership import EndpointPods
from controller.reconcilers.endpoints.mirror import EndpointSliceMirror
from controller.reconcilers.endpoints.slices_watch import EndpointSliceReconciler
from controller.reconcilers.event_ttl import EventExpiry
from controller.reconcilers.garbage import GarbageCollector
from controller.reconcilers.ingress_status import IngressStatus
from controller.reconcilers.liveness import Liveness
from controller.reconcilers.loop import Reconciler, run_loop
from controller.reconcilers.namespace import NamespaceReconciler
from controller.reconcilers.namespace_defaults import DefaultServiceAccounts, RootCaPublisher
from controller.reconcilers.node_ipam import NodeIpam
from controller.reconcilers.node_watch import NodeHealth, NodeLifecycle
from controller.reconcilers.pod_gc import PodGarbageCollector
from controller.reconcilers.quota import ResourceQuotaReconciler
from controller.reconcilers.replicaset_watch import ReplicaSetReconciler
from controller.reconcilers.service_account_tokens import ServiceAccountTokens
from controller.reconcilers.service_claims import ServiceClaims
from controller.reconcilers.service_lb_watch import ServiceLoadBalancers
from controller.reconcilers.statefulset_watch import StatefulSetReconciler
from controller.reconcilers.storage_protection import ClaimProtection, VolumeProtection
from controller.reconcilers.taint_eviction import TaintEviction
from controller.reconcilers.views import Views
from controller.registry.ranges import NO_POOL, Pool
from controller.registry.recorder import Recorder
from controller.registry.registry import Registry
from controller.store.types import Guard

FIELD_MANAGER = "kube-controller-manager"


def every_controller(name: str) -> bool:
    del name
    return True


@dataclass(frozen=True)
class Settings:
    """What differs between installations. `enabled(name)` says which reconcilers run."""

    cluster_cidr: str = "10.244.0.0/16"
    node_cidr_mask: int = 24
    ca_pem: str = ""
    """The cluster's CA certificate, published to every namespace as ConfigMap kube-root-ca.crt."""
    authority: Authority | None = None
    """Who signs certificates; None: nobody does."""
    signer: TokenSigner | None = None
    """Who signs the tokens that Secrets ask for; None: nobody does."""
    node_grace_seconds: float = 40.0
    """For nodes that never heartbeat: as kube-controller-manager's --node-monitor-grace-period."""
    event_ttl_seconds: float = 3600.0
    terminated_pods: int = 12_500
    load_balancer_pool: Pool = NO_POOL
    """Empty: Services of type LoadBalancer get the addresses of nodes."""
    enabled: Callable[[str], bool] = field(default=every_controller)


def build(registry: Registry, liveness: Liveness, settings: Settings) -> list[Reconciler[Any]]:
    """Every enabled reconciler, ready to be given to `run_loop`."""
    views = Views(registry.store)
    endpoint_pods = EndpointPods()
    health = NodeHealth(views, liveness, settings.node_grace_seconds)
    everything: list[Reconciler[Any]] = [
        DefaultServiceAccounts(views),
        RootCaPublisher(views, settings.ca_pem),
        ServiceAccountTokens(views, settings.signer, settings.ca_pem, utc_now),
        ReplicaSetReconciler(views, utc_now),
        DeploymentReconciler(views, utc_now),
        StatefulSetReconciler(views, utc_now),
        DaemonSetReconciler(views, utc_now),
        DisruptionReconciler(views, utc_now),
        EndpointSliceReconciler(registry.store, endpoint_pods),
        EndpointsReconciler(registry.store, endpoint_pods),
        EndpointSliceMirror(registry.store),
        GarbageCollector(views),
        NamespaceReconciler(views, utc_now),
        NodeLifecycle(views, health, utc_now),
        TaintEviction(views, health, utc_now),
        IngressStatus(views),
        NodeIpam(views, settings.cluster_cidr, settings.node_cidr_mask),
        PodGarbageCollector(views, settings.terminated_pods, utc_now),
        ResourceQuotaReconciler(views, utc_now),
        ClaimProtection(views),
        ClusterRoleAggregation(views),
        BootstrapTokenCleaner(views, utc_now),
        CertificateSigner(views, settings.authority, utc_now),
        VolumeProtection(views),
        ServiceClaims(views, registry.ranges),
        ServiceLoadBalancers(views, settings.load_balancer_pool, registry.ranges),
        EventExpiry(views, settings.event_ttl_seconds, utc_now),
    ]
    return [reconciler for reconciler in everything if settings.enabled(reconciler.name)]


async def run_reconcilers(
    registry: Registry, liveness: Liveness, settings: Settings, guards: tuple[Guard, ...] = ()
) -> None:
    """Reconciles until cancelled. The cache is first brought up to everything a former leader may have written."""
    await registry.store.current()
    recorder = Recorder(registry, request_of("kube-controller-manager", guards), "kube-controller-manager")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        tasks.create_task(liveness.run())
        for reconciler in build(registry, liveness, settings):
            executor = Executor(registry, request_of(reconciler.name, guards), recorder, reconciler.name)
            tasks.create_task(run_loop(reconciler, registry.store, executor))


def request_of(name: str, guards: tuple[Guard, ...]) -> Request:
    """Writes in the name of the service account a Kubernetes controller of that name would use."""
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
    user = User(f"system:serviceaccount:kube-system:{name}", groups=groups)
    return Request(user=user, field_manager=FIELD_MANAGER, guards=guards)
