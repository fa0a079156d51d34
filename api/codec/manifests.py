"""Manifests as people write them: several documents, lists of objects, and the line of every field.

Called by the CLI. A field that is written twice is an error here, because nobody after us could see it any more.
Pure: the caller reads the files. The only error is `ManifestError`, which names file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.codec.json_text import Unparsable, parse_json
from api.codec.yaml_text import Document, YamlFault, read_documents
from api.objects import Object


class ManifestError(ValueError):
    """`FILE:LINE: what is wrong`."""

    def __init__(self, filename: str, line: int, why: str) -> None:
        super().__init__(f"{filename}:{line}: {why}")
        self.filename = filename
        self.line = line
        self.why = why


@dataclass(frozen=True)
class Manifest:
    """One object. `lines` maps a field path (`spec.containers[0].image`, "" for the object) to its line, from 1."""

    obj: Object
    filename: str
    lines: dict[str, int] = field(default_factory=dict)

    def line_of(self, path: str) -> int:
        """The line of a field, or of its nearest enclosing field that is written down."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


def load_manifests(text: str, filename: str) -> list[Manifest]:
    """Every object of a YAML or JSON text; objects of `kind: List` come one by one. Raises ManifestError."""
    found: list[Manifest] = []
    try:
        for document in _documents(text):
            for path in document.duplicates:
                raise ManifestError(filename, _line(document, path), f"{path} is written twice")
            found += _objects(document, document.value, "", filename)
    except YamlFault as fault:
        raise ManifestError(filename, max(fault.line, 1), fault.why) from fault
    return found


def _documents(text: str) -> Iterator[Document]:
    """JSON is nearly YAML; what only a JSON parser can read (tabs) is read by one, without lines."""
    try:
        yield from list(read_documents(text, with_lines=True))
    except YamlFault:
        if not text.lstrip().startswith("{"):
            raise
        try:
            value, duplicates = parse_json(text.encode())
        except Unparsable:
            value = None
        if value is None:
            raise
        yield Document(value, duplicates)


def _line(document: Document, path: str) -> int:
    return document.lines.get(path, 1)


def _objects(document: Document, value: Any, path: str, filename: str) -> Iterator[Manifest]:
    if not isinstance(value, dict):
        raise ManifestError(
            filename, _line(document, path), "an object was expected here: apiVersion, kind, metadata ..."
        )
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            inner = f"items[{index}]"
            yield from _objects(document, item, f"{path}.{inner}" if path else inner, filename)
        return
    yield Manifest(value, filename, _lines_below(document.lines, path))


def _lines_below(lines: dict[str, int], path: str) -> dict[str, int]:
    if not path:
        return lines
    prefix = path + "."
    below = {place.removeprefix(prefix): line for place, line in lines.items() if place.startswith(prefix)}
    below[""] = lines.get(path, 1)
    return below
