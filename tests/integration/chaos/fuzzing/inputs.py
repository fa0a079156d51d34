"""Requests made by chance: every kind, verb, body format, patch dialect, query parameter and header.

`request_of(seed)` is a pure function: a failing input is told by its seed. What would end the server's usefulness for
the inputs after it (webhooks that refuse everything, the namespace going away) is sent as a dry run only.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from api.kinds import KINDS, Kind
from tests.integration.chaos.fuzzing.objects import TEXTS, Maker
from tests.integration.chaos.fuzzing.protobuf_writer import envelope, varint

GADGET = Kind("fuzz.test", "v1", "Gadget", "gadgets")
TABLE = (*KINDS, *[GADGET] * 4, *[kind for kind in KINDS if kind.kind == "CustomResourceDefinition"] * 3)
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
ACCEPTS = (
    *(JSON, YAML, PROTOBUF, "*/*", "text/html", "application/json;as=Table;g=meta.k8s.io;v=v1", "application/*;q=0"),
    *("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/json;as=Table;v=v9;g=x", ";,;="),
    *("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.5", "application/json;q=x"),
    *("application/yaml;as=Table;g=meta.k8s.io;v=v1beta1", "application/json;as=APIGroupDiscoveryList", "a" * 3000),
)
SELECTORS = (
    *("app=x", "app in (x,y)", "app notin (x)", "!app", "app", "a=b,c!=d", "app in (x", "a==b==c", ",", "x>1", "app>x"),
    *(
        "metadata.name=f1",
        "metadata.namespace!=fuzz",
        "status.phase=Running",
        "spec.size=big",
        "type=Opaque",
        "a\\=b=c",
    ),
    *("(" * 500, ",".join(f"k{n}!=v" for n in range(300)), "app in (" + ",".join(map(str, range(300))) + ")", "\x00=1"),
)
PARAMETERS: dict[str, tuple[str, ...]] = {
    "dryRun": ("All", "", "None", "all"),
    "fieldManager": ("fuzz", "", "m" * 129, "a\x07b", "é"),
    "fieldValidation": ("Strict", "Warn", "Ignore", "Hard"),
    "force": ("true", "false", "1", "perhaps"),
    "pretty": ("true", "1", "x"),
    "labelSelector": SELECTORS,
    "fieldSelector": SELECTORS,
    "limit": ("0", "1", "2", "-1", "99999999999999999999", "1.5", "x"),
    "continue": (
        *("x", "e30", "bnVsbA", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYS9iXHUwMDAwIn0", "%ff", "="),
        *(
            "eyJydiI6MWUzMDgsInN0YXJ0IjoiYS9iIn0",
            "eyJydiI6dHJ1ZSwic3RhcnQiOiJhL2IifQ",
            "eyJydiI6NSwic3RhcnQiOiIvXHUwMDAwIn0",
        ),
    ),
    "resourceVersion": ("0", "1", "5000", "-1", "x", "18446744073709551616", "9" * 5000),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "Roughly"),
    "sendInitialEvents": ("true", "false", "x"),
    "allowWatchBookmarks": ("true", "x"),
    "gracePeriodSeconds": ("0", "-1", "5", "99999999999", "x"),
    "propagationPolicy": ("Orphan", "Background", "Foreground", "Sideways"),
    "orphanDependents": ("true", "x"),
    "includeObject": ("None", "Metadata", "Object", "x"),
    "timeoutSeconds": ("1", "0", "-5", "x", "99999999999999999999"),
}
READING = ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "pretty")
WATCHING = ("labelSelector", "fieldSelector", "resourceVersion", "sendInitialEvents", "allowWatchBookmarks")
WRITING = ("fieldManager", "fieldValidation", "force", "pretty", "dryRun")
DELETING = ("gracePeriodSeconds", "propagationPolicy", "orphanDependents", "labelSelector", "fieldSelector")
NAMES = ("f0", "f1", "f2", "f3")
_DRY = ("webhook", "policies", "bindings", "namespaces", "nodes", "clusterrole")
"""Resources whose objects would change what the following inputs meet."""
_LARGEST_BYTES = 1 << 20
_DEFINITION = "gadgets.fuzz.test"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def request_of(seed: int) -> Request:
    """The request of this seed."""
    return _Writer(random.Random(seed)).request()


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.maker = Maker(chance)

    def request(self) -> Request:
        kind = self.chance.choice(TABLE)
        name = _DEFINITION if kind.kind == "CustomResourceDefinition" else self.chance.choice(NAMES)
        if kind.kind == "CustomResourceDefinition" and self.chance.random() < 0.9:
            name = self.chance.choice(("gadgets.fuzz.test", "widgets.fuzz.test"))
        where = _collection(kind, "fuzz")
        which = self.chance.random()
        if which < 0.40:
            made = self._create(kind, where, name)
        elif which < 0.58:
            made = self._update(kind, where, name)
        elif which < 0.80:
            made = self._patch(kind, where, name)
        elif which < 0.88:
            made = self._read(kind, where, name)
        elif which < 0.96:
            made = self._delete(kind, where, name)
        else:
            made = self._below(kind, where, name)
        return self._odd(made)

    def _query(self, names: tuple[str, ...], *fixed: str) -> str:
        chosen = [name for name in names if self.chance.random() < 0.15]
        pairs = [f"{name}={quote(self.chance.choice(PARAMETERS[name]))}" for name in chosen if name not in fixed[0:1]]
        return "&".join([*pairs, *(text for text in fixed if "=" in text)])

    def _write_query(self, kind: Kind) -> str:
        """Four of five writes are dry runs, those that would get in the way always."""
        dry = any(part in kind.plural for part in _DRY) or self.chance.random() < 0.8
        # The first value counts, so ours comes first.
        return "&".join(part for part in ("dryRun=All" if dry else "", self._query(WRITING[:-1])) if part)

    def _object(self, kind: Kind, name: str) -> dict[str, Any]:
        return self.maker.altered(kind, self.maker.good(kind, name, "fuzz"))

    def _create(self, kind: Kind, where: str, name: str) -> Request:
        body, content_type = self._body(self._object(kind, name))
        return Request("POST", f"{where}?{self._write_query(kind)}", {"Content-Type": content_type}, body)

    def _update(self, kind: Kind, where: str, name: str) -> Request:
        below = self._subresource(kind, ("status", "scale", "finalize", "approval", "ephemeralcontainers"))
        given = Kind("autoscaling", "v1", "Scale", "scales") if below == "/scale" else kind
        body, content_type = self._body(self._object(given, name))
        path = f"{where}/{name}{below}?{self._write_query(kind)}"
        return Request("PUT", path, {"Content-Type": content_type}, body)

    def _patch(self, kind: Kind, where: str, name: str) -> Request:
        content_type = self.chance.choice(PATCHES)
        obj = self._object(kind, name)
        whole = self.chance.random() < 0.5 or content_type == PATCHES[3]
        patch: Any = obj if whole else {key: value for key, value in obj.items() if key != "metadata"}
        if content_type == PATCHES[0]:
            patch = self._operations(obj)
        elif content_type == PATCHES[2] and self.chance.random() < 0.3:
            patch = self._directives(patch)
        body = self._yaml(patch) if content_type == PATCHES[3] and self.chance.random() < 0.3 else self._json(patch)
        below = self._subresource(kind, ("status", "scale", "approval", "ephemeralcontainers"))
        query = self._write_query(kind)
        if content_type == PATCHES[3] and self.chance.random() < 0.9:
            query += "&fieldManager=" + self.chance.choice(("a", "b"))
        return Request("PATCH", f"{where}/{name}{below}?{query}", {"Content-Type": content_type}, body)

    def _subresource(self, kind: Kind, names: tuple[str, ...]) -> str:
        known = [each.name for each in kind.subresources if each.name in names] or (
            ["status", "scale"] if kind is GADGET else []
        )
        return "/" + self.chance.choice(known) if known and self.chance.random() < 0.3 else ""

    def _operations(self, obj: dict[str, Any]) -> Any:
        """A JSON patch, most of whose paths exist in an object like this."""
        chance = self.chance
        paths = [*_pointers(obj)]
        operations: list[Any] = []
        for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
            path = (
                chance.choice(paths) if chance.random() < 0.8 else chance.choice(("", "/", "/-", "~", "/a~2", "/x/y"))
            )
            path += chance.choice(("", "", "", "/-", "/0", "/99999999999", "/-1", "/~1", "/x"))
            act = chance.choice(("add", "remove", "replace", "move", "copy", "test", "test", "merge", 5))
            row: dict[str, Any] = {
                "op": act,
                "path": path,
                "value": self.maker.anything(2),
                "from": chance.choice(paths),
            }
            if chance.random() < 0.1:
                del row[chance.choice(list(row))]
            operations.append(row if chance.random() < 0.97 else self.maker.anything(1))
        return operations if chance.random() < 0.95 else self.maker.anything(2)

    def _directives(self, patch: Any) -> Any:
        """Strategic merge's own keys, where they belong and where they do not."""
        chance = self.chance
        spots = [value for value in _values(patch) if isinstance(value, dict)]
        for _ in range(chance.randint(1, 3)):
            spot = chance.choice(spots)
            key = chance.choice(list(spot) or ["containers"])
            name = chance.choice(
                ("$patch", "$retainKeys", f"$setElementOrder/{key}", f"$deleteFromPrimitiveList/{key}")
            )
            spot[name] = chance.choice(("delete", "replace", "merge", "x", [key], [{"name": "c"}], 5, None, {}))
        return patch

    def _read(self, kind: Kind, where: str, name: str) -> Request:
        chance = self.chance
        headers = {"Accept": chance.choice(ACCEPTS)} if chance.random() < 0.6 else {}
        which = chance.random()
        if which < 0.25:
            path = f"{where}/{name}?{self._query(('resourceVersion', 'pretty', 'includeObject'))}"
        elif which < 0.32:
            # The end of a watch is what this input costs: no event loop is spent on it, but a second of waiting is.
            path = f"{where}?timeoutSeconds=1&watch=1&{self._query(WATCHING)}"
        else:
            path = f"{where}?{self._query((*READING, 'includeObject', 'timeoutSeconds', 'sendInitialEvents'))}"
        return Request("GET", path, headers)

    def _delete(self, kind: Kind, where: str, name: str) -> Request:
        dry = any(part in kind.plural for part in _DRY) or self.chance.random() < 0.5
        query = "&".join(["dryRun=All"] * dry + [self._query(DELETING)])
        path = f"{where}/{name}" if self.chance.random() < 0.8 else where
        if self.chance.random() < 0.5:
            return Request("DELETE", f"{path}?{query}")
        options = Kind("", "v1", "DeleteOptions", "deleteoptions")
        wire = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        wire |= {"dryRun": ["All"]} if dry else {}
        if self.chance.random() < 0.3:
            wire["preconditions"] = self.maker.anything(2)
        # A broken body may lose its dryRun: what has to be dry is not broken.
        body, content_type = self._body(self.maker.altered(options, wire) if not dry else wire, broken=not dry)
        return Request("DELETE", f"{path}?{query}", {"Content-Type": content_type}, body)

    def _below(self, kind: Kind, where: str, name: str) -> Request:
        """Subresources that are no plain objects, and paths that are none."""
        chance = self.chance
        names = [each.name for each in kind.subresources] or ["status", "scale"]
        below = chance.choice([*names, "x", "..", "%2e%2e", "%2f", "%00", ""])
        method = chance.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"))
        given = {
            "eviction": Kind("policy", "v1", "Eviction", "evictions"),
            "binding": Kind("", "v1", "Binding", "bindings"),
            "token": Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests"),
        }.get(below, kind)
        body, content_type = self._body(self._object(given, name))
        path = f"{where}/{name}/{below}?dryRun=All&{self._query(('pretty', 'timeoutSeconds'))}"
        if method in ("GET", "OPTIONS", "TRACE"):
            return Request(method, path)
        return Request(method, path, {"Content-Type": content_type}, body)

    # ---- bodies ----

    def _body(self, obj: dict[str, Any], *, broken: bool = True) -> tuple[bytes, str]:
        chance = self.chance
        which = chance.random()
        if which < 0.5:
            return self._json(obj, broken=broken), JSON
        if which < 0.65:
            return self._yaml(obj, broken=broken), YAML
        data = envelope(obj)
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 5)) if broken else 0):
            data = self._bent(data)
        return data, PROTOBUF

    def _json(self, value: Any, *, broken: bool = True) -> bytes:
        text = json.dumps(value, ensure_ascii=self.chance.random() < 0.5)
        data = text.encode("utf-8", "surrogatepass")
        return self._bent_text(data) if broken and self.chance.random() < 0.25 else data

    def _yaml(self, value: Any, *, broken: bool = True) -> bytes:
        """JSON that is read as YAML, for it does not begin as JSON does; or lines."""
        chance = self.chance
        if chance.random() < 0.5 and isinstance(value, dict):
            lines = [
                f"{key if re.fullmatch('[a-zA-Z]+', key) else json.dumps(key)}: {json.dumps(each)}"
                for key, each in value.items()
            ]
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
        else:
            data = b"--- " + json.dumps(value).encode("utf-8", "surrogatepass")
        if broken and chance.random() < 0.3:
            extra = (
                b"? [a]\n: b\n",
                b"a: &a [*a]\n",
                b"b: !!python/name:os.system\n",
                b"<<: {a: 1}\n",
                b"\tx: 1\n",
                b"--- 2\n",
            )
            data += b"\n" + chance.choice(
                (*extra, b'u: "\\ud800"\n', b"n: .nan\n", b"t: 2024-01-01\n", b"o: 0o17\nh: 1:30\n")
            )
        return self._bent_text(data) if broken and chance.random() < 0.1 else data

    def _bent_text(self, data: bytes) -> bytes:
        """A text that is broken where texts break."""
        chance = self.chance
        spot = chance.randint(0, len(data))
        pieces = (
            *(b"\xff\xfe", b'"\\ud800"', b"NaN", b"-Infinity", b'{"a":1,"a":2}', b"[" * 2000, b'{"a":' * 1200, b"\x00"),
            *(
                b"1e99999",
                b"-",
                b"9" * 400,
                b"/*x*/",
                b",",
                b"}",
                b"]",
                b'"',
                b"\\u0000",
                b"\xf0\x9f\x98",
                b"true",
                b"&a *a",
            ),
        )
        which = chance.random()
        if which < 0.25:
            return data[:spot]
        if which < 0.45 and b'":' in data:
            keys = [match.start() for match in re.finditer(rb'"[a-zA-Z]+":', data)]
            at = chance.choice(keys or [0])
            return data[:at] + b'"name": "twice", "name": 5, ' + data[at:]
        if which < 0.85:
            return data[:spot] + chance.choice(pieces) + data[spot:]
        return re.sub(rb'"[a-z0-9]*"', lambda _: chance.choice(pieces), data, count=1)

    def _bent(self, data: bytes) -> bytes:
        """Protobuf that is broken where protobuf breaks."""
        chance = self.chance
        spot, end = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
        match chance.randint(0, 8):
            case 0:
                return data[:spot]
            case 1:
                return data[:spot] + bytes([chance.randint(0, 255)]) + data[spot + 1 :]
            case 2:
                return data[:spot] + b"\xff" * chance.choice((1, 5, 9, 10, 11)) + data[spot:]
            case 3:
                times = chance.choice((2, 3, 200))
                return data[:spot] + data[spot:end] * min(times, _LARGEST_BYTES // (end - spot + 1)) + data[end:]
            case 4:
                return data[:spot] + varint(chance.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1))) + data[spot:]
            case 5:
                return data[:spot] + bytes(chance.randint(0, 255) for _ in range(8)) + data[spot:]
            case 6:
                deep = data[spot:end]
                for _ in range(chance.choice((5, 120, 3000))):
                    deep = b"\x0a" + varint(len(deep)) + deep
                return data[:spot] + deep + data[end:]
            case 7:
                return data[:spot] + data[end:]
        return data[:spot] + bytes([chance.randint(1, 31) << 3 | chance.choice((0, 1, 2, 3, 4, 5, 6, 7))]) + data[spot:]

    def _odd(self, made: Request) -> Request:
        """Now and then something about the request itself is odd."""
        chance = self.chance
        if chance.random() > 0.06:
            return made
        headers = dict(made.headers)
        match chance.randint(0, 6):
            case 0:
                headers["Content-Type"] = chance.choice(
                    (*PATCHES, JSON, YAML, PROTOBUF, "", ";", "application/cbor", "x" * 999)
                )
            case 1:
                headers["Accept"] = chance.choice(ACCEPTS)
            case 2:
                headers["Impersonate-User"] = chance.choice(
                    ("u", "", "system:serviceaccount:a:b", "system:node:n", "é")
                )
            case 3:
                headers["Impersonate-User"] = "u"
                headers[
                    chance.choice(
                        ("Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-%41%zz", "Impersonate-Extra-")
                    )
                ] = chance.choice(("g", "system:masters", "", "x" * 2000))
            case 4:
                headers["Content-Encoding"] = chance.choice(("gzip", "identity", "br", "deflate"))
            case 5:
                headers["If-None-Match"] = chance.choice(('"x"', "*", '"'))
            case 6:
                return Request(made.method, _twisted(made.path, chance), headers, made.body)
        return Request(made.method, made.path, headers, made.body)


def _twisted(path: str, chance: random.Random) -> str:
    spots = [match.start() for match in re.finditer("/", path)]
    at = chance.choice(spots)
    part = chance.choice(
        ("//", "/../", "/%2f", "/%2e%2e/", "/%00", "/%ff", "/%zz", "/" + quote(chance.choice(TEXTS)) + "/")
    )
    return path[:at] + part + path[at + 1 :]


def _collection(kind: Kind, namespace: str) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{root}/namespaces/{namespace}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"


def _pointers(value: Any, prefix: str = "") -> Iterator[str]:
    yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if len(prefix) < 300:
            yield from _pointers(item, f"{prefix}/{str(key).replace('~', '~0').replace('/', '~1')}")


def _values(value: Any) -> Iterator[Any]:
    yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _values(item)
