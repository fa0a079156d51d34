"""Objects and schemas for the tests of patches."""

from api.kinds import by_gvk
from api.objects import Object
from api.schema import Node, merge_schema


def schema(group: str, kind: str) -> Node:
    found = by_gvk(group, "v1", kind)
    node = merge_schema(found) if found is not None else None
    assert node is not None
    return node


DEPLOYMENT = schema("apps", "Deployment")
CONFIG_MAP = schema("", "ConfigMap")
POD = schema("", "Pod")


def pod(*containers: Object, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": list(containers), **spec},
    }
