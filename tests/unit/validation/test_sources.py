"""Volumes and claims: the forms of their sources, and what of them may change."""

from typing import Any

import pytest

# ruff: noqa: E501 -- the table holds Kubernetes' sentences whole
from api.objects import Object, clone
from tests.unit.validation.objects import judged, pod, stored

CLASS = "volume.beta.kubernetes.io/storage-class"


def volume(**spec: Any) -> Object:
    base = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {**base, **spec}}


def claim(**spec: Any) -> Object:
    base = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "c", "namespace": "n"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {**base, **spec}}


def updated(obj: Object, **spec: Any) -> list[str]:
    old = stored(obj)
    judged(old)
    new = clone(old)
    new["spec"] |= spec
    return judged(new, old)


@pytest.mark.parametrize(
    ("source", "errors"),
    [
        ({"hostPath": {"path": "/x"}}, []),
        ({"hostPath": {"path": "/x/.."}}, ["hostPath.path: Invalid value: \"/x/..\": must not contain '..'"]),
        ({"nfs": {"server": "s", "path": "x"}}, ['nfs.path: Invalid value: "x": must be an absolute path']),
        ({"fc": {"lun": 1}}, ["fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"]),
        (
            {"fc": {"targetWWNs": ["a"], "lun": 256}},
            ["fc.lun: Invalid value: 256: must be between 0 and 255, inclusive"],
        ),
        (
            {"hostPath": {"path": "/"}, "cephfs": {"monitors": ["m"]}},
            ["{cephfs}: Forbidden: may not specify more than 1 volume type"],
        ),
        ({"csi": {"driver": "d!", "volumeHandle": "h"}}, ["csi.driver: Invalid value: "]),
    ],
)
def test_a_pod_and_a_persistent_volume_judge_a_source_alike(source: Object, errors: list[str]) -> None:
    for prefix, found in (
        ("spec", judged(volume(**source))),
        ("spec.volumes[0]", judged(pod(volumes=[{"name": "v", **source}]))),
    ):
        expected = [f"{prefix}.{error}".replace("{cephfs}", "cephFS") for error in errors]
        assert len(found) == len(expected) and all(map(str.startswith, found, expected))


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "o"}}, []),
        (
            {"dataSource": {"kind": "Pod", "name": "o"}},
            [
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            ],
        ),
        (
            {
                "dataSource": {"kind": "A", "name": "o", "apiGroup": "a.b"},
                "dataSourceRef": {"kind": "B", "name": "o", "apiGroup": "a.b"},
            },
            ["spec: Invalid value: {}: must match dataSourceRef"],
        ),
    ],
)
def test_what_a_claim_is_filled_from(spec: Object, errors: list[str]) -> None:
    assert judged(claim(**spec)) == errors


def test_the_source_of_a_volume_stays_and_the_change_is_shown_in_the_servers_form() -> None:
    [error] = updated(volume(hostPath={"path": "/x"}), hostPath={"path": "/y"})
    assert error.startswith("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable")
    assert '\n-  "Path": "/x",\n+  "Path": "/y",\n' in error


def test_an_expansion_secret_may_be_added_to_a_csi_volume() -> None:
    csi = {"driver": "d", "volumeHandle": "h"}
    secret = {"name": "s", "namespace": "n"}
    assert updated(volume(csi=csi), csi={**csi, "controllerExpandSecretRef": secret}) == []


def test_a_claim_may_be_given_a_class_once() -> None:
    assert updated(claim(), storageClassName="fast") == []
    [error] = updated(claim(storageClassName="slow"), storageClassName="fast")
    assert '\n- "StorageClassName": "slow",\n+ "StorageClassName": "fast",\n' in error


def test_the_class_annotation_of_a_claim_stays() -> None:
    old = stored(claim())
    new = clone(old)
    new["metadata"]["annotations"] = {CLASS: "fast"}
    assert judged(new, old) == [f'metadata.annotations.{CLASS}: Invalid value: "fast": field is immutable']
