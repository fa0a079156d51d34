"""Which rules hold for which kind, for creating, updating and each subresource.

The table is the whole story: a kind without a row has only its metadata checked. On update Kubernetes judges metadata
for all kinds first (`check_updated_metadata`), then the kind does, so one fault there has two causes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from api.errors import FieldError
from api.kinds import Kind
from api.names import is_dns_subdomain
from api.objects import Object
from api.schema.custom.type import custom_of
from controller.registry.validation import (
    autoscaling,
    batch,
    certificates,
    claims,
    config,
    coordination,
    definitions,
    limits,
    networking,
    node,
    plain,
    pods,
    rbac,
    resize,
    service,
    sets,
    slices,
    storage,
    webhooks,
    workloads,
)
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import Errors, Value

Create = Callable[[Errors, Value], None]
Update = Callable[[Errors, Value, Value], None]


@dataclass(frozen=True)
class Rules:
    """The checks of one kind. What is posted to a subresource as an object of its own (Binding, Scale, TokenRequest) is
    judged where it is taken."""

    create: Create
    update: Update
    subresources: dict[str, Update] = field(default_factory=dict)


_STORAGE = "storage.k8s.io"
_NETWORKING = "networking.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_HOOKS = Rules(webhooks.check_configuration, webhooks.check_configuration_update)
_EVENT = Rules(coordination.check_event, coordination.check_event_update)


def _metadata_only(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"])


_METADATA_ONLY: dict[str, Update] = {"status": _metadata_only}

_RULES: dict[tuple[str, str], Rules] = {
    ("", "Namespace"): Rules(
        config.check_namespace,
        config.check_namespace_update,
        {"status": config.check_namespace_status, "finalize": config.check_namespace_finalize},
    ),
    ("", "Node"): Rules(node.check_node, node.check_node_update, {"status": node.check_node_change}),
    ("", "Pod"): Rules(
        pods.check_pod,
        pods.check_pod_update,
        {
            "status": pods.check_pod_status,
            "ephemeralcontainers": pods.check_ephemeral_update,
            "resize": resize.check_pod_resize,
        },
    ),
    ("", "ConfigMap"): Rules(config.check_config_map, config.check_config_map_update),
    ("", "Secret"): Rules(config.check_secret, config.check_secret_update),
    ("", "ServiceAccount"): Rules(
        config.check_service_account,
        config.check_service_account_update,
    ),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("coordination.k8s.io", "Lease"): Rules(coordination.check_lease, coordination.check_lease_update),
    ("apps", "Deployment"): Rules(
        workloads.check_deployment,
        workloads.check_deployment_update,
        {"status": workloads.check_deployment_status},
    ),
    ("apps", "ReplicaSet"): Rules(
        workloads.check_replica_set,
        workloads.check_replica_set_update,
        {"status": workloads.check_replica_set_status},
    ),
    ("apps", "StatefulSet"): Rules(
        sets.check_stateful_set, sets.check_stateful_set_update, {"status": sets.check_stateful_set_status}
    ),
    ("apps", "DaemonSet"): Rules(
        sets.check_daemon_set, sets.check_daemon_set_update, {"status": sets.check_daemon_set_status}
    ),
    ("", "ReplicationController"): Rules(
        sets.check_replication_controller,
        sets.check_replication_controller_update,
        {"status": workloads.check_replica_set_status},
    ),
    ("apps", "ControllerRevision"): Rules(plain.check_revision, plain.check_revision_update),
    ("", "PodTemplate"): Rules(plain.check_pod_template, plain.check_pod_template_update),
    ("", "Endpoints"): Rules(plain.check_endpoints, plain.check_endpoints_update),
    ("batch", "Job"): Rules(batch.check_job, batch.check_job_update, {"status": batch.check_job_status}),
    ("batch", "CronJob"): Rules(batch.check_cron_job, batch.check_cron_job_update, _METADATA_ONLY),
    ("", "Service"): Rules(
        service.check_service, service.check_service_update, {"status": service.check_service_status}
    ),
    ("discovery.k8s.io", "EndpointSlice"): Rules(slices.check_slice, slices.check_slice_update),
    (_NETWORKING, "Ingress"): Rules(
        networking.check_new_ingress, networking.check_ingress_update, {"status": networking.check_ingress_status}
    ),
    (_NETWORKING, "IngressClass"): Rules(networking.check_ingress_class, networking.check_ingress_class_update),
    (_NETWORKING, "NetworkPolicy"): Rules(networking.check_network_policy, networking.check_network_policy_update),
    ("autoscaling", "HorizontalPodAutoscaler"): Rules(
        autoscaling.check_autoscaler,
        autoscaling.check_autoscaler_update,
        {"status": autoscaling.check_autoscaler_status},
    ),
    ("", "ResourceQuota"): Rules(limits.check_quota, limits.check_quota_update, {"status": limits.check_quota_status}),
    ("", "LimitRange"): Rules(limits.check_limit_range, limits.check_limit_range_update),
    ("policy", "PodDisruptionBudget"): Rules(limits.check_budget, limits.check_budget_update, _METADATA_ONLY),
    ("scheduling.k8s.io", "PriorityClass"): Rules(limits.check_priority_class, limits.check_priority_class_update),
    ("", "PersistentVolume"): Rules(storage.check_volume, storage.check_volume_update, _METADATA_ONLY),
    ("", "PersistentVolumeClaim"): Rules(
        claims.check_claim, claims.check_claim_update, {"status": claims.check_claim_status}
    ),
    (_STORAGE, "CSIStorageCapacity"): Rules(storage.check_capacity, storage.check_capacity_update),
    (_STORAGE, "StorageClass"): Rules(storage.check_storage_class, storage.check_storage_class_update),
    ("certificates.k8s.io", "CertificateSigningRequest"): Rules(
        certificates.check_signing_request,
        certificates.check_signing_request_update,
        {"status": certificates.check_signing_request_status},
    ),
    (_ADMISSION, "MutatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): Rules(
        webhooks.check_policy, webhooks.check_policy_update, _METADATA_ONLY
    ),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): Rules(webhooks.check_binding, webhooks.check_binding_update),
    ("node.k8s.io", "RuntimeClass"): Rules(certificates.check_runtime_class, certificates.check_runtime_class_update),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Rules(
        definitions.check_definition,
        definitions.check_definition_update,
        {"status": definitions.check_definition_status},
    ),
    (_RBAC, "Role"): Rules(rbac.check_role, rbac.check_role_update),
    (_RBAC, "RoleBinding"): Rules(rbac.check_role_binding, rbac.check_role_binding_update),
    (_RBAC, "ClusterRole"): Rules(rbac.check_cluster_role, rbac.check_cluster_role_update),
    (_RBAC, "ClusterRoleBinding"): Rules(rbac.check_cluster_role_binding, rbac.check_cluster_role_binding_update),
}


def validate(kind: Kind, obj: Object, old: Object | None, *, subresource: str = "") -> list[FieldError]:
    """The field errors of a defaulted, type-checked object, in Kubernetes' order; empty means valid.

    `old` is the stored object for an update, None for a create (then names are already generated).
    """
    errors: Errors = []
    rules = _RULES.get((kind.group, kind.kind))
    obj.setdefault("metadata", {})
    if (schema := custom_of(kind)) is not None:
        return _custom(kind, obj, old) + schema.validate(obj, old, subresource=subresource)
    if old is None:
        if rules is not None:
            rules.create(errors, obj)
        else:
            check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=kind.namespaced, finalizers=False)
    else:
        check_updated_metadata(errors, obj["metadata"], old["metadata"], finalizers=False)
        if rules is not None:
            rules.subresources.get(subresource, rules.update)(errors, obj, old)
    return errors


def _custom(kind: Kind, obj: Object, old: Object | None) -> Errors:
    """The metadata of a custom resource."""
    errors: Errors = []
    if old is None:
        check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=kind.namespaced, finalizers=False)
    else:
        check_updated_metadata(errors, obj["metadata"], old["metadata"], finalizers=False)
    return errors
