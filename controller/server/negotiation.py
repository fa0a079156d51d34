"""Which form of an object a client wants: the Accept header read as Kubernetes reads it.

Called by app.py for every request through a bounded cache; pure. Rules:
k8s.io/apiserver/pkg/endpoints/handlers/negotiation. Invariant: clauses are tried in the client's order of preference,
clauses that cannot be served are passed over, and only when none is left the answer is 406. Protobuf is never sent.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from api.errors import NotAcceptable


class Shape(StrEnum):
    """What becomes of an object before it is sent (`as=` of the media type)."""

    OBJECT = ""
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"
    POD_ADDRESS = "PodAddress"


class Form(NamedTuple):
    yaml: bool = False
    shape: Shape = Shape.OBJECT
    version: str = "v1"
    """Of meta.k8s.io, for tables and partial objects."""

    @property
    def content_type(self) -> str:
        return "application/yaml" if self.yaml else "application/json"


class Discovery(NamedTuple):
    """The aggregated form of discovery: `apidiscovery.k8s.io` v2 or v2beta1."""

    version: str

    @property
    def content_type(self) -> str:
        return f"application/json;g=apidiscovery.k8s.io;v={self.version};as=APIGroupDiscoveryList"


class Clause(NamedTuple):
    """One alternative of an Accept header."""

    media: str
    parameters: dict[str, str]
    quality: float


PLAIN = Form()
_AVAILABLE = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml"
_JSON = ("application/json", "*/*", "application/*")
_YAML = ("application/yaml",)


@lru_cache(maxsize=512)
def negotiate(accept: str, *, pods: bool = False, tables: bool = True) -> Form:
    """The form of an object or list. Raises NotAcceptable.

    `pods`: of pods, which have a shape of their own; `tables`: whether what is sent can be a row of a table.
    """
    if not accept:
        return PLAIN
    for clause in parse_accept(accept):
        form = _form(clause)
        if form is None or (form.shape is Shape.POD_ADDRESS and not pods):
            continue
        if tables or form.shape is not Shape.TABLE:
            return form
    raise NotAcceptable(_AVAILABLE, {})


@lru_cache(maxsize=128)
def negotiate_discovery(accept: str) -> Discovery | Form:
    """The form of /api and /apis: aggregated when asked for, else legacy."""
    for clause in parse_accept(accept):
        wanted = clause.parameters
        if clause.media in _JSON and wanted.get("as") == "APIGroupDiscoveryList":
            if wanted.get("g") == "apidiscovery.k8s.io" and wanted.get("v") in ("v2", "v2beta1"):
                return Discovery(wanted["v"])
            continue
        form = _form(clause)
        if form is not None and form.shape is Shape.OBJECT:
            return form
    if not accept:
        return PLAIN
    raise NotAcceptable(_AVAILABLE, {})


def parse_accept(header: str) -> list[Clause]:
    """The clauses by falling quality, the client's order kept among equals."""
    clauses = [_clause(part) for part in header.split(",") if part.strip()]
    clauses.sort(key=lambda clause: -clause.quality)
    return [clause for clause in clauses if clause.quality > 0]


def _clause(text: str) -> Clause:
    media, *rest = (part.strip() for part in text.split(";"))
    parameters = {}
    for item in rest:
        key, _, value = item.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"')
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 1.0
    return Clause(media.lower(), parameters, quality)


def _form(clause: Clause) -> Form | None:
    yaml = clause.media in _YAML
    if not yaml and clause.media not in _JSON:
        return None
    wanted = clause.parameters.get("as", "")
    if not wanted:
        return Form(yaml=yaml)
    if wanted == Shape.POD_ADDRESS:
        known = clause.parameters.get("g") == "wherry" and clause.parameters.get("v") == "v1"
        return Form(yaml, Shape.POD_ADDRESS) if known else None
    if clause.parameters.get("g") != "meta.k8s.io" or clause.parameters.get("v") not in ("v1", "v1beta1"):
        return None
    try:
        return Form(yaml, Shape(wanted), clause.parameters["v"])
    except ValueError:
        return None
