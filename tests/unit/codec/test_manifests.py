"""Manifests for the CLI: every object, and the line of every field."""

from __future__ import annotations

import pytest

from api.codec import ManifestError, load_manifests

TEXT = """\
# a comment
apiVersion: v1
kind: Pod
metadata:
  name: a
spec:
  containers:
  - name: x
    image: busybox:1
---
# nothing here
---
apiVersion: v1
kind: List
items:
- kind: ConfigMap
  metadata: {name: b}
- kind: Secret
  metadata:
    name: c
"""


def test_every_object_comes_with_the_lines_of_its_fields() -> None:
    pod, config_map, secret = load_manifests(TEXT, "x.yaml")
    assert pod.obj["spec"]["containers"] == [{"name": "x", "image": "busybox:1"}]
    assert (pod.line_of(""), pod.line_of("spec.containers[0].image"), pod.line_of("spec.containers[0].nope.x")) == (
        2,
        9,
        8,
    )
    assert (config_map.obj["metadata"]["name"], config_map.line_of("metadata.name")) == ("b", 17)
    assert (secret.line_of(""), secret.line_of("metadata.name"), secret.filename) == (18, 20, "x.yaml")


def test_json_is_a_manifest_too() -> None:
    (manifest,) = load_manifests('{"kind": "Pod",\n "metadata": {\n\t"name": "a"}}', "x.json")
    assert manifest.obj["metadata"] == {"name": "a"}
    assert manifest.line_of("metadata.name") == 3
    (tabbed,) = load_manifests('\t{"kind":\n\t"Pod"}', "x.json")
    assert tabbed.obj == {"kind": "Pod"}


def test_an_empty_text_holds_nothing() -> None:
    assert load_manifests("# nothing\n---\n", "x.yaml") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: 1\nb: [\n", "x.yaml:3: did not find expected node content"),
        ("a: 1\na: 2\n", "x.yaml:2: a is written twice"),
        ("- a\n", "x.yaml:1: an object was expected here: apiVersion, kind, metadata ..."),
        ("kind: List\nitems:\n- 5\n", "x.yaml:3: an object was expected here: apiVersion, kind, metadata ..."),
        ("a:\n  b: c: d\n", "x.yaml:2: mapping values are not allowed in this context"),
    ],
)
def test_faults_name_file_and_line(text: str, error: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifests(text, "x.yaml")
    assert str(caught.value) == error
