"""Writes api/schema/data/types.json: what the wire knows about every field of every Kubernetes type that wherry names.

Run by a developer when Kubernetes moves: `python deploy/generate_schema.py API APIMACHINERY APIEXTENSIONS`, each a git
directory of the repository of that name. Facts come from two sources, which are checked against each other: the Go
types (JSON name, Go type as error messages print it, protobuf number, pointer or not, omitempty) and the published
OpenAPI of the development dependency kubernetes-validate (list types, map keys, patch strategies, required fields).
No prose of either ends up in the output. Format of the output: see `api/schema/facts.py`, its only reader.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent.parent / "api" / "schema" / "data" / "types.json"
POINTER, OMITEMPTY, OMITZERO, REQUIRED = 1, 2, 4, 8

API_PACKAGES = (
    "admissionregistration/v1",
    "apps/v1",
    "authentication/v1",
    "authorization/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates/v1",
    "coordination/v1",
    "core/v1",
    "discovery/v1",
    "events/v1",
    "networking/v1",
    "node/v1",
    "policy/v1",
    "rbac/v1",
    "scheduling/v1",
    "scheduling/v1alpha3",
    "storage/v1",
)
APIEXTENSIONS = "apiextensions/v1"
META = "meta/v1"

KINDS = {
    "core/v1": "Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod "
    "PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount",
    "apps/v1": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "batch/v1": "CronJob Job",
    "autoscaling/v1": "HorizontalPodAutoscaler Scale",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "policy/v1": "Eviction PodDisruptionBudget",
    "networking/v1": "Ingress IngressClass NetworkPolicy",
    "rbac/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "coordination/v1": "Lease",
    "discovery/v1": "EndpointSlice",
    "events/v1": "Event",
    "node/v1": "RuntimeClass",
    "scheduling/v1": "PriorityClass",
    "storage/v1": "CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment",
    "authentication/v1": "SelfSubjectReview TokenRequest TokenReview",
    "authorization/v1": "LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview",
    "certificates/v1": "CertificateSigningRequest",
    "admissionregistration/v1": "MutatingWebhookConfiguration ValidatingAdmissionPolicy "
    "ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
    APIEXTENSIONS: "CustomResourceDefinition",
    META: "DeleteOptions ListMeta Status",
}
GROUPS = {
    "core": "",
    "rbac": "rbac.authorization.k8s.io",
    "networking": "networking.k8s.io",
    "coordination": "coordination.k8s.io",
    "discovery": "discovery.k8s.io",
    "events": "events.k8s.io",
    "node": "node.k8s.io",
    "scheduling": "scheduling.k8s.io",
    "storage": "storage.k8s.io",
    "authentication": "authentication.k8s.io",
    "authorization": "authorization.k8s.io",
    "certificates": "certificates.k8s.io",
    "admissionregistration": "admissionregistration.k8s.io",
    "apiextensions": "apiextensions.k8s.io",
    "meta": "",
}
SPECIAL = {
    "meta.v1.Time": "time",
    "meta.v1.MicroTime": "microtime",
    "meta.v1.Duration": "duration",
    "meta.v1.FieldsV1": "fields",
    "resource.Quantity": "quantity",
    "intstr.IntOrString": "intorstring",
    "runtime.RawExtension": "raw",
    "apiextensions.v1.JSON": "json",
    "apiextensions.v1.JSONSchemaPropsOrBool": "propsorbool",
    "apiextensions.v1.JSONSchemaPropsOrArray": "propsorarray",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "propsorstrings",
}
BASIC = {"string", "bool", "int32", "int64", "float64"}
MESSAGE_LISTS = {
    "meta.v1.Verbs",
    "authentication.v1.ExtraValue",
    "authorization.v1.ExtraValue",
    "certificates.v1.ExtraValue",
}

_TAG = re.compile(r'(\w+):"([^"]*)"')
_FIELD = re.compile(r"^\t(?:([A-Z]\w*)\s+)?([\w.*\[\]]+)\s+`([^`]*)`")


@dataclass
class Struct:
    """A Go struct: fields by JSON name as (Go type, protobuf number, flags); `inline` as (protobuf number, Go type)."""

    fields: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    inline: list[tuple[int, str]] = field(default_factory=list)


class GoSource:
    """Every named type of the packages read, by id (`core.v1.Container`)."""

    def __init__(self) -> None:
        self.structs: dict[str, Struct] = {}
        self.named: dict[str, str] = {}

    def read(self, repository: str, path: str, package: str) -> None:
        text = subprocess.run(
            ["git", "-C", repository, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True
        ).stdout
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        imports = dict(re.findall(r'^\s+(\w+) "(k8s\.io/[^"]+)"', text, flags=re.MULTILINE))
        imports |= {
            path.rsplit("/", 1)[1]: path for path in re.findall(r'^\s+"(k8s\.io/[^"]+)"', text, flags=re.MULTILINE)
        }
        qualify = _Qualifier(package, {name: _package_of(path) for name, path in imports.items()})
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL):
            self.structs[f"{package}.{name}"] = _parse_struct(body, qualify)
        for name in re.findall(r"^type (\w+) struct\s?\{\}", text, flags=re.MULTILINE):
            self.structs[f"{package}.{name}"] = Struct()
        for name, target in re.findall(r"^type (\w+) (?:= )?([\w.*\[\]]+)$", text, flags=re.MULTILINE):
            if target != "interface":
                self.named[f"{package}.{name}"] = qualify(target)


def _package_of(import_path: str) -> str:
    """`core.v1` for k8s.io/api/core/v1, `resource` for k8s.io/apimachinery/pkg/api/resource."""
    parts = import_path.split("/")
    return ".".join(parts[-2:]) if re.fullmatch(r"v\d\w*", parts[-1]) else parts[-1]


@dataclass(frozen=True)
class _Qualifier:
    package: str
    imports: dict[str, str]

    def __call__(self, go_type: str) -> str:
        if go_type.startswith("[]"):
            return "[]" + self(go_type[2:])
        if match := re.fullmatch(r"map\[([\w.]+)\](.+)", go_type):
            return f"map[{self(match[1])}]{self(match[2])}"
        if go_type.startswith("*"):
            return "*" + self(go_type[1:])
        if go_type in BASIC | {"byte", "uint8", "int", "uint32"}:
            return go_type
        if "." in go_type:
            package, name = go_type.split(".")
            return f"{self.imports[package]}.{name}"
        return f"{self.package}.{go_type}"


def _parse_struct(body: str, qualify: _Qualifier) -> Struct:
    struct = Struct()
    for line in body.splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        _, go_type, tag_text = match.groups()
        tags = dict(_TAG.findall(tag_text))
        json_name, *options = tags.get("json", "").split(",")
        numbers = re.findall(r",(\d+),", "," + tags.get("protobuf", "") + ",")
        number = int(numbers[0]) if numbers else 0
        if json_name == "-" or "json" not in tags:
            continue
        if not json_name:
            struct.inline.append((number, qualify(go_type)))
            continue
        flags = POINTER if go_type.startswith("*") else 0
        flags |= OMITEMPTY if "omitempty" in options else 0
        flags |= OMITZERO if "omitzero" in options else 0
        struct.fields[json_name] = (qualify(go_type.removeprefix("*")), number, flags)
    return struct


class OpenApi:
    """The published definitions, asked by our type ids."""

    def __init__(self) -> None:
        data = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.37.0-local" / "_definitions.json"
        self._definitions: dict[str, Any] = json.loads(data.read_text())["$defs"]

    def of(self, type_id: str) -> dict[str, Any]:
        for prefix in ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apiextensions-apiserver.pkg.apis."):
            if found := self._definitions.get(prefix + type_id):
                return dict(found)
        return {}


def merge_facts(schema: dict[str, Any]) -> str:
    """`listType;listMapKeys;patchMergeKey;patchStrategy;mapType`, trailing empties cut."""
    facts = (
        schema.get("x-kubernetes-list-type", ""),
        ",".join(schema.get("x-kubernetes-list-map-keys", ())),
        schema.get("x-kubernetes-patch-merge-key", ""),
        schema.get("x-kubernetes-patch-strategy", ""),
        schema.get("x-kubernetes-map-type", ""),
    )
    return ";".join(facts).rstrip(";")


class Generator:
    def __init__(self, source: GoSource, openapi: OpenApi) -> None:
        self._source = source
        self._openapi = openapi
        self.types: dict[str, Any] = {}

    def add(self, type_id: str) -> None:
        """Adds a struct and all that it mentions."""
        if type_id in self.types:
            return
        struct = self._source.structs[type_id]
        schema = self._openapi.of(type_id)
        entry: dict[str, Any] = {"f": {}}
        self.types[type_id] = entry
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        for name, (go_type, number, flags) in struct.fields.items():
            if name in required:
                flags |= REQUIRED
            row: list[Any] = [self.spell(go_type), number, flags]
            if name in properties and (facts := merge_facts(properties[name])):
                row.append(facts)
            entry["f"][name] = row
        if (0, "meta.v1.TypeMeta") in struct.inline:
            entry["t"] = 1
        inline = [(number, target) for number, target in struct.inline if target != "meta.v1.TypeMeta"]
        if inline:
            entry["i"] = inline
        for _, target in inline:
            self.add(target)
        if map_type := schema.get("x-kubernetes-map-type"):
            entry["m"] = map_type
        self._report_strangers(type_id, set(properties))

    def _report_strangers(self, type_id: str, published: set[str]) -> None:
        """Says where the two sources disagree, so that a person looks."""
        strangers = (published ^ self._names_of(type_id)) - {"apiVersion", "kind"}
        if published and strangers:
            print(f"{type_id}: OpenAPI and Go differ in {sorted(strangers)}", file=sys.stderr)

    def _names_of(self, type_id: str) -> set[str]:
        entry = self.types[type_id]
        names = set(entry["f"])
        for _, target in entry.get("i", ()):
            names |= self._names_of(target)
        return names

    def spell(self, go_type: str) -> str:
        """A Go type in the grammar of `api/schema/facts.py`."""
        if go_type == "[]byte":
            return "bytes"
        if go_type.startswith("[]"):
            return "[]" + self.spell(go_type[2:].removeprefix("*"))
        if match := re.fullmatch(r"map\[([\w.]+)\](.+)", go_type):
            key = "" if match[1] == "string" else shown(match[1])
            return f"{{{key}}}" + self.spell(match[2])
        if go_type in BASIC:
            return go_type
        if go_type in SPECIAL:
            if go_type.startswith("apiextensions"):
                self.add("apiextensions.v1.JSONSchemaProps")
            return SPECIAL[go_type]
        if go_type in self._source.named:
            return self._spell_named(go_type)
        self.add(go_type)
        return "@" + go_type

    def _spell_named(self, go_type: str) -> str:
        target = self._source.named[go_type]
        if go_type in MESSAGE_LISTS:
            return f"={shown(go_type)}=items"
        if target in BASIC:
            return f"{target}:{shown(go_type)}"
        if target.startswith(("[]", "map")):
            return f"={shown(go_type)}=" + self.spell(target)
        return self.spell(target)


def shown(type_id: str) -> str:
    """`v1.Container`: as Go prints the type core.v1.Container."""
    return ".".join(type_id.split(".")[-2:])


def read_sources(api: str, apimachinery: str, apiextensions: str) -> GoSource:
    source = GoSource()
    for package in API_PACKAGES:
        source.read(api, f"{package}/types.go", package.replace("/", "."))
    source.read(apimachinery, "pkg/apis/meta/v1/types.go", "meta.v1")
    source.read(apimachinery, "pkg/types/uid.go", "types")
    for name in ("types.go", "types_jsonschema.go"):
        source.read(apiextensions, f"pkg/apis/apiextensions/v1/{name}", "apiextensions.v1")
    return source


def main() -> None:
    generator = Generator(read_sources(*sys.argv[1:4]), OpenApi())
    kinds: dict[str, str] = {}
    for package, names in KINDS.items():
        group, version = package.split("/")
        for name in names.split():
            type_id = f"{group}.{version}.{name}"
            generator.add(type_id)
            kinds[f"{GROUPS.get(group, group)}/{version}/{name}"] = type_id
    for extra in ("core.v1.ObjectReference", "meta.v1.StatusDetails", "meta.v1.LabelSelector"):
        generator.add(extra)
    OUTPUT.parent.mkdir(exist_ok=True)
    rows = sorted(generator.types.items())
    lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'))}" for name, entry in rows)
    OUTPUT.write_text(f'{{"kinds":{json.dumps(kinds, separators=(",", ":"))},\n"types":{{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
