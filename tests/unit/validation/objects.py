"""Valid objects to be broken by the tests, and what `validate` says of them."""

from typing import Any

from api.kinds import by_gvk
from api.objects import Object, clone
from api.schema import default
from controller.registry.validation import validate


def judged(obj: Object, old: Object | None = None, *, subresource: str = "") -> list[str]:
    """Defaults, validates, and returns the errors as the message lists them."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = by_gvk(group, version, obj["kind"])
    assert kind is not None
    for one in filter(None, (obj, old)):
        default(kind, one)
    return [str(error) for error in validate(kind, obj, old, subresource=subresource)]


def pod(**spec: Any) -> Object:
    container = {"name": "c", "image": "i"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"serviceAccountName": "default", "containers": [container], **spec},
    }


def pod_with(**fields: Any) -> Object:
    """A pod whose only container has more fields."""
    return pod(containers=[{"name": "c", "image": "i", **fields}])


def deployment(**spec: Any) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec},
    }


def config_map(**fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, **fields}


def secret(**fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, **fields}


def stored(obj: Object) -> Object:
    """A copy as it might be stored."""
    copied = clone(obj)
    copied["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    return copied


def changed(old: Object, **fields: Any) -> Object:
    return clone(old) | fields
