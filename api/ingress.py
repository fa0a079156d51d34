"""Whose Ingress is it, and which Secrets does it name: what controller and agents must answer alike.

Called by the node authorizer, the status reconciler and the agents' ingress part. Pure. Rules:
kubernetes.io/docs/concepts/services-networking/ingress (Ingress class) and the deprecated annotation's own page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import annotations_of

NODE_LABEL = "wherry/ingress"
"""A node with this label set to "true" answers for Ingresses on its ports 80 and 443."""
CONTROLLER = "wherry/ingress"
CLASS_NAME = "wherry"
LEGACY_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
TLS_SECRET_TYPE = "kubernetes.io/tls"

View = Mapping[str, Any]


def is_ours(ingress: View, controllers: Mapping[str, str]) -> bool:
    """Whether wherry serves an Ingress. `controllers` maps the name of each IngressClass to its spec.controller.

    spec.ingressClassName decides, then the annotation, whose value may also be our name where no class has it; an
    Ingress that names no class is ours.
    """
    name = (ingress.get("spec") or {}).get("ingressClassName")
    if name is not None:
        return controllers.get(name) == CONTROLLER
    legacy = annotations_of(ingress).get(LEGACY_ANNOTATION)
    if legacy:
        return controllers.get(legacy, CONTROLLER if legacy == CLASS_NAME else "") == CONTROLLER
    return True


def controller_of_class(ingress_class: View) -> str:
    return str((ingress_class.get("spec") or {}).get("controller") or "")


def tls_secrets(ingress: View) -> frozenset[str]:
    """The Secrets, in the Ingress's namespace, that its certificates are to come from."""
    entries = (ingress.get("spec") or {}).get("tls") or ()
    return frozenset(entry["secretName"] for entry in entries if entry.get("secretName"))


def is_ingress_node(labels: Mapping[str, str]) -> bool:
    return labels.get(NODE_LABEL) == "true"
