"""Requests that are wrong before they are objects: text, bytes, kinds, selectors, queries, paths, headers, patches.

Read by test_malformed.py. What the answer must say is the offender's name or the word for what is wrong with it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import orjson

from tests.integration.chaos.malformed_objects import APPS, CORE, Case, good

MAPS = f"{CORE}/configmaps"
PODS = f"{CORE}/pods"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
WHOLE = orjson.dumps(good("ConfigMap"))
YAML_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((c, c) + (c - 1,) * 9) for c in range(ord("b"), ord("k"))
)
MERGE_BOMB = b"a: &a {x0: 1}\n" + b"".join(
    b"b%d: &b%d {<<: [%s]}\n" % (n, n, b",".join([b"*b%d" % (n - 1) if n else b"*a"] * 50)) for n in range(20)
)

TEXTS: list[tuple[str, bytes, str, str]] = [
    ("nothing", b"", "application/json", "JSON"),
    ("spaces", b"   \n", "application/json", "JSON"),
    *((f"cut after {end} bytes", WHOLE[:end], "application/json", "") for end in (1, 9, 30, 60, len(WHOLE) - 1)),
    ("an array", b"[]", "application/json", ""),
    ("a number", b"5", "application/json", ""),
    ("a string", b'"ConfigMap"', "application/json", ""),
    ("true", b"true", "application/json", ""),
    ("garbage behind", WHOLE + b"}", "application/json", "invalid character '}'"),
    ("single quotes", b"{'kind': 'ConfigMap'}", "application/json", "'"),
    ("a comment", b"{/* */}", "application/json", "/"),
    ("NaN", b'{"data": {"k": NaN}}', "application/json", "N"),
    ("a bare control character", b'{"data": {"k": "a\x01b"}}', "application/json", ""),
    ("half a surrogate", b'{"metadata": {"name": "x"}, "data": {"\\ud800": "x"}}', "application/json", ""),
    ("half a surrogate in a value", b'{"metadata": {"name": "x"}, "spec": "\\udfff"}', "application/json", ""),
    ("no UTF-8", b'{"data": {"k": "\xff\xfe"}}', "application/json", ""),
    ("UTF-16", '{"data": {}}'.encode("utf-16"), "application/json", ""),
    ("deep arrays", b"[" * 100_000, "application/json", ""),
    ("deep objects", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "application/json", ""),
    ("deep where anything goes", b'{"metadata":' * 2_000 + b"{}" + b"}" * 2_000, "application/json", ""),
    ("yaml cut", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x", YAML, "yaml"),
    ("yaml with tabs", b"metadata:\n\tname: x\n", YAML, "yaml"),
    ("yaml unbalanced", b"a: [1, 2\nb: }", YAML, "yaml"),
    ("yaml of two documents", b"kind: ConfigMap\n---\nkind: ConfigMap\n", YAML, ""),
    ("yaml that is a list", b"- a\n- b\n", YAML, ""),
    ("yaml that is text", b"just words", YAML, ""),
    ("yaml with Python in it", b"!!python/object/apply:os.system ['true']", YAML, ""),
    ("yaml with an unknown alias", b"a: *nobody", YAML, ""),
    ("yaml that eats itself", b"a: &a [*a]", YAML, ""),
    ("an alias bomb", YAML_BOMB, YAML, ""),
    ("a merge bomb", MERGE_BOMB, YAML, ""),
    ("deep yaml", b"[" * 20_000, YAML, ""),
    ("deep yaml by indentation", b"".join(b" " * n + b"a:\n" for n in range(2_000)), YAML, ""),
    ("yaml with a binary key", b"metadata: {name: x}\ndata: {!!binary aGk=: x}", YAML, ""),
    ("yaml keyed by a list", b"? [a]\n: b\n", YAML, ""),
    ("random bytes", bytes(range(256)), "application/json", ""),
    ("random bytes as yaml", bytes(range(256)), YAML, ""),
]

_ENVELOPE = b"\x0a\x0b\x0a\x02v1\x12\x05" + b"ConfigMap"[:5]
BINARIES: list[tuple[str, bytes, str]] = [
    ("no magic", b"\x0a\x02v1", "prefix"),
    ("magic alone", b"k8s\x00", ""),
    ("half the magic", b"k8", "prefix"),
    ("magic and junk", b"k8s\x00" + bytes(range(255, 0, -1)), ""),
    ("an endless number", b"k8s\x00" + b"\xff" * 20, ""),
    ("a length beyond the end", b"k8s\x00\x0a\x7fab", ""),
    ("a gigantic length", b"k8s\x00\x0a\xff\xff\xff\xff\x7f", ""),
    ("a negative length", b"k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ""),
    ("a group", b"k8s\x00\x0b\x0c", ""),
    ("field number zero", b"k8s\x00\x02\x01a", ""),
    ("an envelope cut short", b"k8s\x00" + _ENVELOPE[:-3], ""),
    ("another kind", b"k8s\x00\x0a\x0d\x0a\x02v1\x12\x07Unheard\x12\x00", "Unheard"),
    ("a body of junk", b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\xff\xff\xff\xff\xff", ""),
    ("a string that is no UTF-8", b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x06\x0a\x04\x0a\x02\xff\xfe", ""),
    ("JSON", WHOLE, "prefix"),
]

SELECTORS = [
    ("labelSelector", "a==b==c"), ("labelSelector", "a in b"), ("labelSelector", "a in (b"), ("labelSelector", "=x"),
    ("labelSelector", "a%20b"), ("labelSelector", "a,,b"), ("labelSelector", "a=b%20c"), ("labelSelector", "a>b"),
    ("labelSelector", "!"), ("labelSelector", "a+notin+()+x"), ("labelSelector", "%00"),
    ("labelSelector", "a=" + "x" * 64), ("labelSelector", "%ff%fe=1"), ("labelSelector", "(" * 5000),
    ("fieldSelector", "metadata.name"),
    ("fieldSelector", "spec.color=blue"), ("fieldSelector", "metadata.name=a,b"), ("fieldSelector", "=x"),
    ("fieldSelector", "metadata.name>a"), ("fieldSelector", "a\\=b"), ("fieldSelector", "data.k=v"),
]  # fmt: skip

QUERIES: list[tuple[str, str, str, str]] = [
    ("GET", MAPS, "limit=many", "many"),
    ("GET", MAPS, "limit=1.5", "1.5"),
    ("GET", MAPS, "limit=99999999999999999999", "99999999999999999999"),
    ("GET", MAPS, "limit=%D9%A1", "invalid syntax"),
    ("GET", MAPS, "limit=1_0", "1_0"),
    ("GET", MAPS, "continue=junk", "continue"),
    ("GET", MAPS, "continue=%ff", "continue"),
    ("GET", MAPS, "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6InRleHQifQ", "continue"),
    ("GET", MAPS, "continue=bnVsbA", "continue"),
    ("GET", MAPS, "continue=e30&resourceVersion=5", "continue"),
    ("GET", MAPS, "resourceVersion=latest", "latest"),
    ("GET", MAPS, "resourceVersion=-1", "-1"),
    ("GET", MAPS, "resourceVersion=99999999999999999999999", "resourceVersion"),
    ("GET", MAPS, "resourceVersionMatch=Exact", "resourceVersionMatch"),
    ("GET", MAPS, "resourceVersion=5&resourceVersionMatch=Roughly", "Roughly"),
    ("GET", MAPS, "watch=1&timeoutSeconds=soon", "soon"),
    ("GET", MAPS, "watch=1&timeoutSeconds=99999999999999999999", "out of range"),
    ("GET", MAPS, "watch=1&sendInitialEvents=true", "resourceVersionMatch"),
    ("GET", MAPS, "sendInitialEvents=true", "sendInitialEvents"),
    ("GET", MAPS, "watch=1&resourceVersionMatch=NotOlderThan", "resourceVersionMatch"),
    ("POST", MAPS, "dryRun=maybe", "dryRun"),
    ("POST", MAPS, "fieldValidation=Hard", "fieldValidation"),
    ("POST", MAPS, f"fieldManager={'m' * 129}", "fieldManager"),
    ("POST", MAPS, "fieldManager=a%0Ab", "fieldManager"),
    ("DELETE", f"{MAPS}/kept", "propagationPolicy=Sideways", "propagationPolicy"),
    ("DELETE", f"{MAPS}/kept", "gracePeriodSeconds=later", "later"),
    ("DELETE", MAPS, "labelSelector=((", "found '('"),
]

PATHS: list[tuple[str, str, tuple[int, ...], str]] = [
    ("GET", "/api/v2/pods", (404,), "404"),
    ("GET", "/apis/apps/v9/deployments", (404,), "404"),
    ("GET", "/apis/nobody.io/v1/things", (404,), "404"),
    ("GET", f"{CORE}/things", (404,), "could not find"),
    ("POST", f"{CORE}/things", (404,), "could not find"),
    ("POST", "/api/v1/pods", (404, 405), "the server"),
    ("GET", f"{MAPS}/kept/status/more", (404,), "could not find"),
    ("GET", f"{MAPS}/kept/scale", (404,), "could not find"),
    ("GET", f"{MAPS}/nobody", (404,), "nobody"),
    ("GET", "/api/v1/namespaces/nowhere/pods/x", (404,), "x"),
    ("POST", "/api/v1/namespaces/nowhere/configmaps", (404,), "nowhere"),
    ("GET", f"{MAPS}/..%2f..%2fsecrets", (404,), ""),
    ("GET", f"{MAPS}/%00", (404,), ""),
    ("GET", f"{MAPS}/%zz", (400, 404), ""),
    ("GET", f"{MAPS}/%ff%fe", (404,), ""),
    ("GET", f"{MAPS}/" + "n" * 5000, (404,), "not found"),
    ("DELETE", f"{MAPS}/nobody", (404,), "nobody"),
    ("PUT", f"{MAPS}/other", (400,), "name"),
    ("PUT", MAPS, (405,), "method"),
    ("PATCH", MAPS, (405,), "method"),
    ("POST", f"{MAPS}/kept", (405,), "method"),
    ("BREW", f"{MAPS}/kept", (400, 405), "method"),
    ("POST", "/version", (405,), "method"),
    ("GET", "/livez/nonsense", (404,), "404"),
    ("GET", "/openapi/v3/apis/nobody/v1", (404,), ""),
    ("GET", "/wherry/v1/nodes/a/session", (400,), "Upgrade"),
    ("GET", "/wherry/v1/nodes//session", (400, 404), ""),
    ("POST", "/wherry/v1/join", (400,), "nodeName"),
    ("GET", f"{PODS}/nobody/log", (404,), "nobody"),
    ("GET", f"{PODS}/nobody/exec?command=x", (404,), "nobody"),
    ("GET", "/api/v1/nodes/nobody/proxy/metrics", (404,), "nobody"),
]

HEADERS: list[tuple[str, str, dict[str, str], tuple[int, ...], str]] = [
    ("GET", MAPS, {"Accept": "application/xml"}, (406,), "application/json"),
    ("GET", MAPS, {"Accept": "application/json;as=Chair;v=v1;g=meta.k8s.io"}, (406,), "application/json"),
    ("GET", MAPS, {"Accept": ";;;,,,=\x80"}, (406,), "application/json"),
    ("POST", MAPS, {"Content-Type": "image/png"}, (415,), "media type"),
    ("POST", MAPS, {"Content-Type": "\x7f"}, (415, 400), ""),
    ("POST", MAPS, {"Content-Type": "application/cbor"}, (415,), "media type"),
    ("GET", MAPS, {"Authorization": "Bearer nonsense"}, (401,), "Unauthorized"),
    ("GET", MAPS, {"Authorization": "Bearer a.b.c"}, (401,), "Unauthorized"),
    ("GET", MAPS, {"Authorization": "Bearer \xff\xfe"}, (401,), "Unauthorized"),
    ("GET", MAPS, {"Authorization": "Bearer abcdef.0123456789abcdef"}, (401,), "Unauthorized"),
    ("GET", MAPS, {"Authorization": "Basic !!!"}, (401, 403), ""),
    ("GET", MAPS, {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, (401,), "Unauthorized"),
    ("GET", MAPS, {"Impersonate-User": "nobody"}, (403,), "nobody"),
    ("GET", MAPS, {"Impersonate-Group": "system:masters"}, (400,), "Impersonate-User"),
    ("POST", MAPS, {"Content-Encoding": "gzip"}, (400,), "body"),
    ("POST", MAPS, {"Content-Encoding": "snappy"}, (415,), "Content-Encoding"),
    ("GET", MAPS, {"X-Long": "x" * 70_000}, (400, 431), ""),
    ("GET", MAPS, {"Content-Length": "minus one"}, (400,), ""),
    ("GET", MAPS, {"Content-Length": "-1"}, (400,), ""),
]

PATCHES: list[tuple[str, bytes, tuple[int, ...], str]] = [
    (JSON_PATCH, b"{}", (400,), ""),
    (JSON_PATCH, b"junk", (400,), ""),
    (JSON_PATCH, b'[{"op": "fly", "path": "/data"}]', (400, 422), ""),
    (JSON_PATCH, b'[{"path": "/data"}]', (400, 422), ""),
    (JSON_PATCH, b'[{"op": "add", "value": 1}]', (400, 422), ""),
    (JSON_PATCH, b'[{"op": "add", "path": 5, "value": 1}]', (400, 422), ""),
    (JSON_PATCH, b'[{"op": "remove", "path": "/nothing"}]', (422,), "rejected our request"),
    (JSON_PATCH, b'[{"op": "replace", "path": "/data/k/x", "value": "y"}]', (422,), "rejected our request"),
    (JSON_PATCH, b'[{"op": "test", "path": "/data/k", "value": "w"}]', (422,), "rejected our request"),
    (JSON_PATCH, b'[{"op": "copy", "from": "/gone/x", "path": "/data/x"}]', (422,), "rejected our request"),
    (JSON_PATCH, b'[{"op": "move", "from": "/data", "path": "/data/x"}]', (422,), "rejected our request"),
    (JSON_PATCH, b'[{"op": "replace", "path": "", "value": []}]', (400, 422), ""),
    (JSON_PATCH, b'[{"op": "add", "path": "/data/x", "value": 5}]', (400, 422), "data"),
    (JSON_PATCH, b"[" + b'{"op": "add", "path": "/data/x", "value": "y"},' * 10_001 + b"{}]", (413,), "10000"),
    (MERGE, b"[1]", (400,), ""),
    (MERGE, b"5", (400,), ""),
    (MERGE, b'{"data"', (400,), ""),
    (MERGE, b'{"data": 5}', (400, 422), "data"),
    (MERGE, b'{"data": {"k": {}}}', (400, 422), "data"),
    (MERGE, b'{"metadata": {"name": "other"}}', (400, 422), "does not match the name"),
    (MERGE, b'{"metadata": {"uid": "other"}}', (409, 422), "other"),
    (MERGE, b'{"metadata": {"resourceVersion": "1"}}', (409,), "modified"),
    (MERGE, b'{"metadata": {"labels": {"a b": "c"}}}', (422,), "metadata.labels"),
    (MERGE, b'{"kind": "Secret"}', (422,), "Secret"),
    (MERGE, b'{"apiVersion": "v2"}', (422,), "v2"),
    (STRATEGIC, b"junk", (400,), ""),
    (STRATEGIC, b"[]", (400,), ""),
    (STRATEGIC, b'{"data": {"$patch": "explode"}}', (400,), "explode"),
    (STRATEGIC, b'{"$retainKeys": 5}', (400, 422), ""),
    (APPLY, b"{}", (400,), "version"),
    (APPLY, b"a: [", (400,), ""),
    ("text/plain", b"{}", (415,), "415"),
]  # fmt: skip


def wire_cases() -> Iterator[Case]:
    for name, body, content_type, says in TEXTS:
        yield Case(f"text: {name}", "POST", MAPS, body, (400, 422), says, content_type)
    for name, body, says in BINARIES:
        yield Case(f"binary: {name}", "POST", MAPS, body, (400, 422), says, PROTOBUF)
    for field, text in SELECTORS:
        yield Case(f"selector: {field} {text[:30]}", "GET", f"{MAPS}?{field}={text}", None, (400,), "")
    for method, path, query, says in QUERIES:
        sent = WHOLE if method == "POST" else None
        yield Case(f"query: {query[:60]}", method, f"{path}?{query}", sent, (400, 422), says)
    for method, path, status, says in PATHS:
        sent = b"{}" if method in ("POST", "PUT", "PATCH") else None
        yield Case(f"path: {method} {path[:60]}", method, path, sent, status, says)
    for method, path, headers, status, says in HEADERS:
        sent = WHOLE if method == "POST" else None
        yield Case(f"header: {str(headers)[:60]}", method, path, sent, status, says, headers=headers)
    for content_type, body, status, says in PATCHES:
        title = f"patch: {content_type} {body[:70].decode()}"
        query = "?fieldManager=tester" if content_type == APPLY else ""
        yield Case(title, "PATCH", f"{MAPS}/kept{query}", body, status, says, content_type)
    yield from _special_cases()


SCALES = [
    b'{"spec": {"replicas": "x"}}',
    b'{"spec": 5}',
    b'{"metadata": 5}',
    b'{"spec": {"replicas": -1}}',
    b'{"kind": "Deployment", "apiVersion": "apps/v1"}',
]
OPTIONS = [
    b'{"preconditions": 5}',
    b'{"preconditions": {"uid": 5}}',
    b'{"gracePeriodSeconds": "x"}',
    b'{"dryRun": "All"}',
    b'{"dryRun": [5]}',
    b'{"orphanDependents": "yes"}',
    b'{"propagationPolicy": 5}',
    b'{"preconditions": {"resourceVersion": "1"}}',
    b"[]",
    b"{",
]


def _special_cases() -> Iterator[Case]:
    scaled = f"{APPS}/deployments/scaled/scale"
    for body in SCALES:
        yield Case(f"scale: PUT {body.decode()}", "PUT", scaled, body, (400, 422), "")
        yield Case(f"scale: PATCH {body.decode()}", "PATCH", scaled, body, (400, 422), "", MERGE)
    for body in OPTIONS:
        yield Case(f"delete: {body.decode()}", "DELETE", f"{MAPS}/kept", body, (400, 409, 422), "")
    pod = orjson.dumps(good("Pod"))
    gzipped = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * (64 << 20))
    yield Case("kind: a Pod as a ConfigMap", "POST", MAPS, pod, (400,), "Pod")
    yield Case("kind: another version", "POST", MAPS, WHOLE.replace(b'"v1"', b'"v9"'), (400,), "v9")
    yield Case("kind: a number", "POST", MAPS, b'{"kind": 5, "apiVersion": "v1"}', (400,), "kind")
    yield Case(
        "kind: no group", "POST", f"{APPS}/deployments", b'{"apiVersion": "v1", "kind": "Deployment"}', (400,), "v1"
    )
    yield Case("huge: 4 MiB", "POST", MAPS, b" " * (4 << 20), (413,), "too large")
    yield Case("huge: 64 MiB once unpacked", "POST", MAPS, bomb, (400, 413), "", headers=gzipped)
    many = orjson.dumps(good("ConfigMap", "many") | {"data": {f"k{n}": "x" * 12 for n in range(100_000)}})
    yield Case("huge: a hundred thousand keys", "POST", MAPS, many, (413, 422), "")
    for path, body, says in (
        (f"{PODS}/nobody/binding", b'{"target": 5}', "target"),
        (f"{PODS}/nobody/binding", b'{"apiVersion": "v1", "kind": "Binding"}', ""),
        (
            f"{PODS}/nobody/eviction",
            b'{"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": 5}',
            "deleteOptions",
        ),
        (f"{CORE}/serviceaccounts/nobody/token", b'{"spec": {"expirationSeconds": 1}}', ""),
        (f"{PODS}/nobody/binding", b'{"metadata": 5}', "metadata"),
        (f"{PODS}/nobody/eviction", b'{"metadata": []}', "metadata"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", b'{"spec": {"token": 5}}', "token"),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", b'{"spec": {}}', "spec"),
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", b'{"spec": 1}', "spec"),
    ):
        yield Case(f"body of {path[-40:]}: {body[:40].decode()}", "POST", path, body, (400, 404, 422), says)
