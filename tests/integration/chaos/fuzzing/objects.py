"""Objects of every kind: a good one, and what becomes of it when fields are added, broken and moved.

`Maker` is all chance in one place: the same seed makes the same objects. Fields come from `api.schema.facts`, so a new
kind is fuzzed without a line here; SPECS only tells what a good object needs beyond its metadata.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

from api.kinds import Kind
from api.schema.facts import Type, fields_of, struct_of
from tests.property.validation.test_never_fails import OBJECTS

_MOST_PLACES = 10_000
_LABELS = {"app": "x"}
_POD = {"containers": [{"name": "c", "image": "localhost/busybox:1"}]}
_TEMPLATE = {"metadata": {"labels": _LABELS}, "spec": _POD}
_SELECTOR = {"matchLabels": _LABELS}
_HOOK = {
    "name": "h.fuzz.test",
    "clientConfig": {"url": "https://127.0.0.1:1/x"},
    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "matchConditions": [{"name": "m", "expression": "request.name != 'x'"}],
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
                "size": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 20, "default": "small"},
                "when": {"type": "string", "format": "date-time"},
                "port": {"x-kubernetes-int-or-string": True},
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]},
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                },
                "map": {"type": "object", "additionalProperties": {"type": "number", "multipleOf": 0.5}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "choice": {"type": "string", "anyOf": [{"pattern": "^a"}, {"enum": ["b", "c"]}], "nullable": True},
            },
            "x-kubernetes-validations": [
                {"rule": "!has(self.size) || self.size != 'huge'", "messageExpression": "'no ' + self.size"}
            ],
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    },
}
_RULES = ("self.all(x, self.all(y, true))", "self.spec.size.matches('(a+)+$')", "self == oldSelf", "self.x + 1 > 2")
PATTERNS = ("(a+)+$", "(", "(?=a)", "(a|a)*b", "\\p{L}{3}", "[z-a]", "a{1001}", "\\Z", "(?i)x", "")
SPECS: dict[str, dict[str, Any]] = {
    "Pod": {"spec": _POD},
    "PodTemplate": {"template": _TEMPLATE},
    "ConfigMap": {"data": {"k": "v"}, "binaryData": {"b": "dg=="}},
    "Secret": {"type": "Opaque", "data": {"k": "dg=="}, "stringData": {"s": "t"}},
    "Service": {"spec": {"selector": _LABELS, "ports": [{"port": 80, "targetPort": "http"}]}},
    "Endpoints": {"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]},
    "Event": {
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "fuzz"},
        "reason": "R",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "fuzz"},
        "action": "A",
        "reportingController": "c",
        "reportingInstance": "i",
        "eventTime": "2024-01-01T00:00:00.000000Z",
        "type": "Normal",
    },
    "Binding": {"target": {"kind": "Node", "name": "n"}},
    "ReplicationController": {"spec": {"replicas": 1, "selector": _LABELS, "template": _TEMPLATE}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000000", "services": "1000000"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "4"}, "default": {"cpu": "1"}}]}},
    "PersistentVolume": {
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    },
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "Lease": {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 5}},
    "Deployment": {"spec": {"replicas": 1, "selector": _SELECTOR, "template": _TEMPLATE}},
    "ReplicaSet": {"spec": {"replicas": 1, "selector": _SELECTOR, "template": _TEMPLATE}},
    "StatefulSet": {"spec": {"serviceName": "s", "selector": _SELECTOR, "template": _TEMPLATE}},
    "DaemonSet": {"spec": {"selector": _SELECTOR, "template": _TEMPLATE}},
    "ControllerRevision": {"revision": 1, "data": {"a": 1}},
    "Job": {"spec": {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}},
    "CronJob": {
        "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}},
        }
    },
    "HorizontalPodAutoscaler": {
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3}
    },
    "PodDisruptionBudget": {"spec": {"minAvailable": "50%", "selector": _SELECTOR}},
    "PriorityClass": {"value": 10},
    "EndpointSlice": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    },
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
    "IngressClass": {"spec": {"controller": "fuzz.test/c"}},
    "NetworkPolicy": {"spec": {"podSelector": _SELECTOR, "ingress": [{"from": [{"podSelector": {}}]}]}},
    "CertificateSigningRequest": {"spec": {"request": "dg==", "signerName": "fuzz.test/s", "usages": ["client auth"]}},
    "RuntimeClass": {"handler": "runc"},
    "StorageClass": {"provisioner": "fuzz.test/p"},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "ClusterRole": {"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]},
    "RoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}},
    "ClusterRoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}},
    "CustomResourceDefinition": {
        "spec": {
            "group": "fuzz.test",
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _SCHEMA},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                    },
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "string", "jsonPath": '.spec.list[?(@.k=="x")].k'},
                        {"name": "When", "type": "date", "jsonPath": ".spec.when"},
                    ],
                    "selectableFields": [{"jsonPath": ".spec.size"}],
                }
            ],
        }
    },
    "Gadget": {"spec": {"replicas": 1, "size": "big", "list": [{"k": "x"}], "map": {"a": 1.5}, "choice": "b"}},
    "MutatingWebhookConfiguration": {"webhooks": [{**_HOOK, "reinvocationPolicy": "IfNeeded"}]},
    "ValidatingWebhookConfiguration": {"webhooks": [_HOOK]},
    "ValidatingAdmissionPolicy": {
        "spec": {
            "matchConstraints": {"resourceRules": _HOOK["rules"]},
            "validations": [{"expression": "object.metadata.name != 'x'", "messageExpression": "'no'"}],
            "variables": [{"name": "v", "expression": "1"}],
        }
    },
    "ValidatingAdmissionPolicyBinding": {"spec": {"policyName": "p", "validationActions": ["Deny"]}},
    "TokenReview": {"spec": {"token": "t"}},
    "TokenRequest": {"spec": {"audiences": ["a"], "expirationSeconds": 3600}},
    "Eviction": {"deleteOptions": {"gracePeriodSeconds": 1}},
    "Scale": {"spec": {"replicas": 2}},
    "SubjectAccessReview": {"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}},
    "LocalSubjectAccessReview": {
        "spec": {"user": "u", "resourceAttributes": {"namespace": "fuzz", "verb": "get", "resource": "pods"}}
    },
    "SelfSubjectAccessReview": {"spec": {"nonResourceAttributes": {"path": "/x", "verb": "get"}}},
    "SelfSubjectRulesReview": {"spec": {"namespace": "fuzz"}},
    "DeleteOptions": {"gracePeriodSeconds": 0, "propagationPolicy": "Background"},
}
_RICH = {row["kind"]: row for row in OBJECTS}

TEXTS = (
    *("", "a", "x", "app", "A_b", "-a", "a.b", "a/b", "a/b/c", "é", "日本", "\x00", "\n", "a" * 64, "a" * 300, "%"),
    *("0", "1", "-1", "1Ki", "0.5", "100m", "10%", "-5%", "1e3", "1e309", "1E", "0x10", "9" * 30, "Infinity", "NaN"),
    *("2024-01-01T00:00:00Z", "2024-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60+99:99", "1h", "-1s"),
    *("10.0.0.1", "10.0.0.0/8", "10.0.0.0/33", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "0x7f.1", "127.0.0.1:99999"),
    *("* * * * *", "@every 1h", "*/0 * * * *", "61 * * * *", "1-0 * * * *", "TZ=Mars * * * * *", "Europe/Berlin"),
    *("True", "None", "Always", "Never", "TCP", "SCTP", "In", "Exists", "DoesNotExist", "Gt", "NoExecute", "ClusterIP"),
    *("v1", "apps/v1", "fuzz.test/v1", "Pod", "Gadget", "default", "fuzz", "kube-system", "system:masters", "*"),
    *("/", "/a/../b", "..", "../../etc", "metadata.name", "spec.x[0]", ".spec.a", "$(A)", "{{.}}", "self", "(", "["),
    *("dg==", "not base64!", "{}", "[]", "null", "k8s.io/x", "kubernetes.io/metadata.name", "https://127.0.0.1:1/"),
    *_RULES,
    *PATTERNS,
)
NUMBERS = (0, 1, -1, 2, 80, 65535, 65536, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64)
FLOATS = (0.0, -0.0, 0.5, 1.0, 1e-300, 1e15, 1e16, 1e300, -1.7e308)


@dataclass
class Maker:
    """Makes objects by chance."""

    chance: random.Random

    def good(self, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
        """An object that would be taken in, more or less."""
        meta: dict[str, Any] = {"name": name, "labels": {"app": self.chance.choice("xyz")}}
        if kind.namespaced:
            meta["namespace"] = namespace
        rest = SPECS.get(kind.kind, {})
        if kind.kind in _RICH and self.chance.random() < 0.3:
            rest = {key: value for key, value in _RICH[kind.kind].items() if key not in ("metadata", "kind")}
        made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
        return copy.deepcopy(made | {key: value for key, value in rest.items() if key != "apiVersion"})

    def altered(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        """`obj` with a few things added or broken."""
        struct = struct_of(kind)
        for _ in range(self.chance.choice((0, 1, 1, 1, 2, 3, 6))):
            if struct is not None and self.chance.random() < 0.6:
                self._enrich(obj, struct)
            else:
                self._break(obj)
        return obj

    def _enrich(self, obj: dict[str, Any], struct: str) -> None:
        """Sets one field that the schema knows, somewhere below `obj`, to a value of its type or nearly so."""
        while True:
            fields = fields_of(struct)
            name = self.chance.choice(list(fields) or ["x"])
            kind = fields[name].type if fields else Type("string", "string")
            below = obj.get(name)
            if kind.shape == "list" and kind.element is not None and isinstance(below, list) and below:
                kind, below = kind.element, self.chance.choice(below)
            if kind.shape == "struct" and isinstance(below, dict) and self.chance.random() < 0.85:
                obj, struct = below, kind.struct
                continue
            obj[name] = self.typed(kind, 3)
            return

    def typed(self, kind: Type, depth: int) -> Any:
        """A value of this type, now and then of another."""
        chance = self.chance
        if chance.random() < 0.03:
            return self.anything(2)
        if kind.shape == "struct":
            fields = fields_of(kind.struct)
            if depth <= 0 or not fields:
                return {}
            names = chance.sample(list(fields), min(len(fields), chance.choice((0, 1, 2, 3, 5))))
            return {name: self.typed(fields[name].type, depth - 1) for name in names}
        if kind.element is not None and kind.shape == "map":
            return {self.text(): self.typed(kind.element, depth - 1) for _ in range(chance.choice((0, 1, 1, 2, 4)))}
        if kind.element is not None:
            items = [self.typed(kind.element, depth - 1) for _ in range(chance.choice((0, 1, 1, 2, 4)))]
            return items * (300 if chance.random() < 0.01 else 1)
        if kind.shape == "bool":
            return chance.random() < 0.5
        if kind.shape in ("int32", "int64"):
            return chance.choice(NUMBERS) if chance.random() < 0.5 else chance.randint(-2, 100)
        if kind.shape == "float64":
            return chance.choice(FLOATS)
        if kind.shape in ("intorstring", "raw", "json", "fields") and chance.random() < 0.7:
            return chance.choice(NUMBERS) if kind.shape == "intorstring" else self.anything(3)
        return self.text()

    def text(self) -> str:
        chance = self.chance
        if chance.random() < 0.9:
            return chance.choice(TEXTS)
        return "".join(chr(chance.choice((chance.randint(0, 127), chance.randint(0, 0xD7FF)))) for _ in range(6))

    def anything(self, depth: int) -> Any:
        chance = self.chance
        which = chance.randint(0, 9)
        if which < 3:
            return self.text()
        if which < 5:
            return chance.choice(NUMBERS + FLOATS)
        if which == 5:
            return chance.choice((None, True, False))
        if depth <= 0:
            return chance.choice(({}, [], None))
        if which < 8:
            return {self.text(): self.anything(depth - 1) for _ in range(chance.randint(0, 4))}
        return [self.anything(depth - 1) for _ in range(chance.randint(0, 4))]

    def _break(self, obj: Any) -> None:
        """Changes one thing anywhere in `obj`, whatever the schema says."""
        places = [*_places(obj)]
        if not places:
            return
        chance = self.chance
        holder, key = chance.choice(places)
        which = chance.randint(0, 11)
        if which < 4:
            holder[key] = self.anything(2)
        elif which == 4:
            del holder[key]
        elif which == 5:
            holder[key] = None
        elif which == 6:
            other, name = chance.choice(places)
            holder[key] = copy.deepcopy(other[name])
        elif which == 7:
            holder[key] = _nested(holder[key], chance.choice((3, 40, 200)), chance.random() < 0.5)
        elif which == 8 and isinstance(holder[key], list):
            holder[key] = holder[key] * chance.choice((0, 2, 50, 1000))
        elif which == 9 and isinstance(holder, dict):
            holder[self.text()] = holder.pop(key)
        elif which == 10:
            holder[key] = self.text() * chance.choice((1, 100, 5000))
        else:
            holder[key] = chance.choice(NUMBERS + FLOATS)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Where something can be changed. Repeated lists share their elements: what looks small may have millions."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < _MOST_PLACES:
        each = waiting.pop()
        keys = each.keys() if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for key in keys:
            found.append((each, key))
            waiting.append(each[key])
    return found


def _nested(value: Any, depth: int, in_lists: bool) -> Any:
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value
