"""The class of a new Ingress that names none: the cluster's default IngressClass, if one is marked so.

Called by the chain when an Ingress is created. Rule of the admission plugin DefaultIngressClass: of several default
classes the newest, then the first by name (Kubernetes since 1.26, kubernetes/kubernetes#110974). Changes only the
Ingress.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.ingress import DEFAULT_ANNOTATION, LEGACY_ANNOTATION
from api.objects import Object, annotations_of, metadata, name_of, parse_time
from controller.admission.attributes import Reader

INGRESSES = ("networking.k8s.io", "ingresses")
_CLASSES = ("networking.k8s.io", "ingressclasses")


def set_ingress_class(ingress: Object, reader: Reader) -> None:
    spec = ingress.get("spec")
    if spec is None or spec.get("ingressClassName") is not None or LEGACY_ANNOTATION in annotations_of(ingress):
        return
    classes = [record.parse() for record in reader.list(_CLASSES).records]
    defaults = [each for each in classes if annotations_of(each).get(DEFAULT_ANNOTATION) == "true"]
    if defaults:
        spec["ingressClassName"] = name_of(min(defaults, key=_newest_first))


def _newest_first(ingress_class: Mapping[str, Any]) -> tuple[float, str]:
    return -parse_time(metadata(ingress_class)["creationTimestamp"]).timestamp(), name_of(ingress_class)
