"""What wherry does not act on: kinds that are only kept, fields it warns of, fields it refuses.

Read by `unimplemented` for every write and by `tests/proofs.py`: every other field of a pod has to be proven by a test,
which tests/unit/schema/test_support.py checks; SUPPORT.md lists all of them with their proofs. Whoever implements a
field takes its row out and names the field in a test. Refused is what weakens isolation or loses data if it is ignored.
"""

from __future__ import annotations

from typing import Any

_NO_PODS, _NO_TRAFFIC, _NO_STORAGE = "no pods are made for it", "no traffic goes that way", "no storage is provided"
IDLE_KINDS: dict[tuple[str, str], str] = {
    ("", "ReplicationController"): _NO_PODS,
    ("", "PersistentVolume"): _NO_STORAGE,
    ("", "PersistentVolumeClaim"): _NO_STORAGE,
    ("batch", "Job"): _NO_PODS,
    ("batch", "CronJob"): "no jobs are made for it",
    ("autoscaling", "HorizontalPodAutoscaler"): "nothing is scaled by it",
    ("storage.k8s.io", "CSIStorageCapacity"): _NO_STORAGE,
    ("storage.k8s.io", "StorageClass"): _NO_STORAGE,
    ("node.k8s.io", "RuntimeClass"): "every pod runs in its node's one runtime",
}
"""Kinds that are kept and shown while nothing acts on them: creating one is answered with a warning that says so.
Whoever makes something act on a kind takes its row out."""

_NO_LABELS = "containers run without SELinux labels, as on any node without SELinux"
_NO_PROFILES = "containers run under the runtime's own AppArmor profile, on nodes without AppArmor under none"
_FILE_OWNER = "files belong to root or fsGroup"

WARNED: dict[str, dict[str, str]] = {
    "apps.v1.StatefulSetSpec": {
        "volumeClaimTemplates": "claims are made, but no storage, and pods with them are refused"
    },
    "core.v1.PodSpec": {
        "preemptionPolicy": "no pod is removed for this one anyway",
        "os": "every node runs Linux",
        "hostnameOverride": "the host name is hostname or the pod's name",
        "resourceClaims": "no devices are handed out",
        "schedulingGroup": "pods are placed one by one",
        "evictionResponders": "evictions ask nobody",
    },
    "core.v1.EphemeralContainer": {
        "resizePolicy": "resources of a debug container do not change",
    },
    "core.v1.ResourceRequirements": {"claims": "no devices are handed out"},
    "core.v1.EnvVarSource": {"fileKeyRef": "the variable stays unset"},
    "core.v1.VolumeMount": {"bindMountOptions": "the mount has the usual options"},
    "core.v1.VolumeProjection": {
        "clusterTrustBundle": "the file is missing",
        "podCertificate": "the files are missing",
    },
    "core.v1.EmptyDirVolumeSource": {"mode": "the directory is open to all users of the pod"},
    "core.v1.SecretVolumeSource": {"defaultUser": _FILE_OWNER},
    "core.v1.ConfigMapVolumeSource": {"defaultUser": _FILE_OWNER},
    "core.v1.DownwardAPIVolumeSource": {"defaultUser": _FILE_OWNER},
    "core.v1.DownwardAPIVolumeFile": {"user": _FILE_OWNER},
    "core.v1.ProjectedVolumeSource": {"defaultUser": _FILE_OWNER},
    "core.v1.ServiceAccountTokenProjection": {"user": _FILE_OWNER},
    "core.v1.KeyToPath": {"user": _FILE_OWNER},
    "core.v1.HTTPGetAction": {"protocol": "probes speak HTTP/1.1"},
    "core.v1.GRPCAction": {"mode": "probes ask the health service without TLS"},
    "core.v1.Lifecycle": {"stopSignal": "containers are stopped with the signal of their image, or SIGTERM"},
    "core.v1.SecurityContext": {
        "windowsOptions": "every node runs Linux",
        "seLinuxOptions": _NO_LABELS,
        "appArmorProfile": _NO_PROFILES,
    },
    "networking.v1.IngressBackend": {"resource": "only Services are served; requests go where they would without it"},
    "networking.v1.IngressClassSpec": {"parameters": "the ingress has no parameters"},
    "core.v1.PodSecurityContext": {
        "windowsOptions": "every node runs Linux",
        "fsGroupChangePolicy": "volumes change hands at every start",
        "seLinuxChangePolicy": "volumes are not relabelled",
        "seLinuxOptions": _NO_LABELS,
        "appArmorProfile": _NO_PROFILES,
    },
}

_NO_DRIVER = "wherry has no driver for it, and what the pod writes would be lost"
_FOREIGN_VOLUMES = (
    *("gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "persistentVolumeClaim"),
    *("rbd", "flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk"),
    *("photonPersistentDisk", "portworxVolume", "scaleIO", "storageos", "csi", "ephemeral", "image"),
)

REFUSED: dict[str, dict[str, str]] = {
    "core.v1.PodSpec": {
        "runtimeClassName": "wherry has one runtime, and the pod would be isolated by that one only",
        "hostUsers": "wherry makes no user namespaces, and root in the pod would be root on the node",
        "resources": "wherry does not enforce limits of whole pods; set them on the containers",
    },
    "core.v1.Volume": dict.fromkeys(_FOREIGN_VOLUMES, _NO_DRIVER),
    "core.v1.Container": {"volumeDevices": "wherry hands out no block devices"},
    "core.v1.EphemeralContainer": {"volumeDevices": "wherry hands out no block devices"},
    "core.v1.VolumeMount": {"recursiveReadOnly": "mounts below this one would stay writable"},
    "core.v1.PodSecurityContext": {
        "supplementalGroupsPolicy": "groups of the image's own group file would be added all the same",
    },
}

HARMLESS: dict[str, dict[str, tuple[Any, ...]]] = {
    "apps.v1.StatefulSetSpec": {"volumeClaimTemplates": ([],)},
    "core.v1.PodSpec": {
        "preemptionPolicy": ("PreemptLowerPriority", "Never"),
        "os": ({"name": "linux"},),
        "hostUsers": (True,),
    },
    "core.v1.VolumeMount": {"recursiveReadOnly": ("Disabled", "IfPossible")},
    "core.v1.SecurityContext": {"appArmorProfile": ({"type": "Unconfined"},)},
    "core.v1.PodSecurityContext": {
        "appArmorProfile": ({"type": "Unconfined"},),
        "supplementalGroupsPolicy": ("Merge",),
        "fsGroupChangePolicy": ("Always",),
    },
}
"""Values of warned or refused fields that ask for what happens anyway."""
