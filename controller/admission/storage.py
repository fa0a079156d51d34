"""What volumes and claims are given when they are created: the finalizer that protects them, and a storage class.

Called by the chain. A volume or claim in use is deleted only when it is in use no more: the reconcilers pv-protection
and pvc-protection take the finalizers away. Rules from the admission plugins StorageObjectInUseProtection and
DefaultStorageClass.
"""

from __future__ import annotations

from api.objects import Object, annotations_of
from controller.admission.attributes import Attributes, Reader

VOLUMES, CLAIMS = ("", "persistentvolumes"), ("", "persistentvolumeclaims")
CLASSES = ("storage.k8s.io", "storageclasses")
PROTECTION = {VOLUMES: "kubernetes.io/pv-protection", CLAIMS: "kubernetes.io/pvc-protection"}
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def protect(attributes: Attributes, reader: Reader) -> None:
    """Adds the finalizer, and to a claim without a class the default one."""
    finalizer = PROTECTION.get(attributes.kind.resource)
    if finalizer is None:
        return
    obj = attributes.obj
    assert obj is not None
    present = obj["metadata"].get("finalizers") or []
    if finalizer not in present:
        obj["metadata"]["finalizers"] = [*present, finalizer]
    if attributes.kind.resource == CLAIMS:
        _set_class(obj, reader)


def _set_class(claim: Object, reader: Reader) -> None:
    """The newest of the classes marked as default; "" (given) means none."""
    if claim["spec"].get("storageClassName") is not None or _OLD_CLASS in annotations_of(claim):
        return
    classes = (record.parse() for record in reader.list(CLASSES).records)
    defaults = [each for each in classes if annotations_of(each).get(DEFAULT_CLASS) == "true"]
    if defaults:
        newest = max(defaults, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))
        claim["spec"]["storageClassName"] = newest["metadata"]["name"]
