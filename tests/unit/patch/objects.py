"""Objects and schemas for the tests of patches."""

from api.kinds import Kind, by_gvk
from api.objects import Object
from api.schema import Node, merge_schema
from api.schema.custom.type import CustomType


def schema(group: str, kind: str) -> Node:
    found = by_gvk(group, "v1", kind)
    node = merge_schema(found) if found is not None else None
    assert node is not None
    return node


def custom(**properties: Object) -> Node:
    """The node of a custom kind with this schema."""
    version = {"schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}
    node = merge_schema(Kind("example.test", "v1", "Thing", "things", custom=CustomType.of(version)))
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
