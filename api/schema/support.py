"""The table of what wherry does with each kind and each field of a pod: acts on it, warns that it does not, refuses it.

Read by `unimplemented` and by the test that walks every leaf of PodSpec (`tests/unit/schema/test_support.py`), which
fails for a field that is in none of the three. Whoever implements a field moves its name to ACTED_ON; whoever takes in
a newer Kubernetes files its new fields here. Refused is what weakens isolation or loses data when it is ignored.
"""

from __future__ import annotations

from typing import Any

ALL = "*"

ACTED_ON: dict[str, str] = {
    "core.v1.PodSpec": "volumes initContainers containers restartPolicy terminationGracePeriodSeconds dnsPolicy "
    "nodeSelector serviceAccountName serviceAccount automountServiceAccountToken nodeName hostNetwork hostPID hostIPC "
    "shareProcessNamespace securityContext imagePullSecrets hostname subdomain affinity schedulerName tolerations "
    "hostAliases priorityClassName priority dnsConfig readinessGates enableServiceLinks overhead "
    "topologySpreadConstraints setHostnameAsFQDN schedulingGates ephemeralContainers activeDeadlineSeconds",
    "core.v1.Volume": "name hostPath emptyDir secret downwardAPI configMap projected",
    "core.v1.HostPathVolumeSource": ALL,
    "core.v1.EmptyDirVolumeSource": "medium sizeLimit",
    "core.v1.SecretVolumeSource": "secretName items defaultMode optional",
    "core.v1.ConfigMapVolumeSource": "name items defaultMode optional",
    "core.v1.DownwardAPIVolumeSource": "items defaultMode",
    "core.v1.DownwardAPIVolumeFile": "path fieldRef resourceFieldRef mode",
    "core.v1.ProjectedVolumeSource": "sources defaultMode",
    "core.v1.VolumeProjection": "secret downwardAPI configMap serviceAccountToken",
    "core.v1.SecretProjection": ALL,
    "core.v1.ConfigMapProjection": ALL,
    "core.v1.DownwardAPIProjection": ALL,
    "core.v1.ServiceAccountTokenProjection": "audience expirationSeconds path",
    "core.v1.KeyToPath": "key path mode",
    "core.v1.ObjectFieldSelector": ALL,
    "core.v1.ResourceFieldSelector": ALL,
    "core.v1.LocalObjectReference": ALL,
    "core.v1.Container": "name image command args workingDir ports envFrom env resources resizePolicy restartPolicy "
    "restartPolicyRules volumeMounts livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath "
    "terminationMessagePolicy imagePullPolicy securityContext stdin stdinOnce tty",
    "core.v1.EphemeralContainer": "name image command args workingDir ports envFrom env resources restartPolicy "
    "restartPolicyRules volumeMounts livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath "
    "terminationMessagePolicy imagePullPolicy securityContext stdin stdinOnce tty targetContainerName",
    "core.v1.ContainerPort": ALL,
    "core.v1.ContainerResizePolicy": ALL,
    "core.v1.EnvVar": ALL,
    "core.v1.EnvVarSource": "fieldRef resourceFieldRef configMapKeyRef secretKeyRef",
    "core.v1.EnvFromSource": ALL,
    "core.v1.ConfigMapEnvSource": ALL,
    "core.v1.SecretEnvSource": ALL,
    "core.v1.ConfigMapKeySelector": ALL,
    "core.v1.SecretKeySelector": ALL,
    "core.v1.ContainerRestartRule": ALL,
    "core.v1.ContainerRestartRuleOnExitCodes": ALL,
    "core.v1.ResourceRequirements": "limits requests",
    "core.v1.VolumeMount": "name readOnly mountPath subPath subPathExpr mountPropagation",
    "core.v1.Probe": ALL,
    "core.v1.ExecAction": ALL,
    "core.v1.HTTPGetAction": "path port host scheme httpHeaders",
    "core.v1.HTTPHeader": ALL,
    "core.v1.TCPSocketAction": ALL,
    "core.v1.GRPCAction": "port service",
    "core.v1.SleepAction": ALL,
    "core.v1.Lifecycle": "postStart preStop",
    "core.v1.LifecycleHandler": ALL,
    "core.v1.SecurityContext": "capabilities privileged runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem "
    "allowPrivilegeEscalation seccompProfile procMount",
    "core.v1.PodSecurityContext": "runAsUser runAsGroup runAsNonRoot supplementalGroups fsGroup sysctls seccompProfile",
    "core.v1.Capabilities": ALL,
    "core.v1.SeccompProfile": ALL,
    "core.v1.Sysctl": ALL,
    "core.v1.Affinity": ALL,
    "core.v1.NodeAffinity": ALL,
    "core.v1.NodeSelector": ALL,
    "core.v1.NodeSelectorTerm": ALL,
    "core.v1.NodeSelectorRequirement": ALL,
    "core.v1.PreferredSchedulingTerm": ALL,
    "core.v1.PodAffinity": ALL,
    "core.v1.PodAntiAffinity": ALL,
    "core.v1.PodAffinityTerm": ALL,
    "core.v1.WeightedPodAffinityTerm": ALL,
    "core.v1.Toleration": ALL,
    "core.v1.TopologySpreadConstraint": ALL,
    "core.v1.HostAlias": ALL,
    "core.v1.PodDNSConfig": ALL,
    "core.v1.PodDNSConfigOption": ALL,
    "core.v1.PodReadinessGate": ALL,
    "core.v1.PodSchedulingGate": ALL,
    "meta.v1.LabelSelector": ALL,
    "meta.v1.LabelSelectorRequirement": ALL,
}

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
    "core.v1.SecurityContext": {"windowsOptions": "every node runs Linux"},
    "networking.v1.IngressBackend": {"resource": "only Services are served; requests go where they would without it"},
    "networking.v1.IngressClassSpec": {"parameters": "the ingress has no parameters"},
    "core.v1.PodSecurityContext": {
        "windowsOptions": "every node runs Linux",
        "fsGroupChangePolicy": "volumes change hands at every start",
        "seLinuxChangePolicy": "volumes are not relabelled",
    },
}

_NO_DRIVER = "wherry has no driver for it, and what the pod writes would be lost"
_MORE_RIGHTS = "wherry does not enforce it, and the container would have more rights than this asks for"
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
    "core.v1.SecurityContext": {"seLinuxOptions": _MORE_RIGHTS, "appArmorProfile": _MORE_RIGHTS},
    "core.v1.PodSecurityContext": {
        "seLinuxOptions": _MORE_RIGHTS,
        "appArmorProfile": _MORE_RIGHTS,
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
