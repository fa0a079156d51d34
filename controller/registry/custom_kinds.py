"""From a CustomResourceDefinition to the rows it adds to the table of kinds. Pure; called by the server's definitions.

One row a served version; the objects of all of them lie in the store under (group, plural), written in the storage
version. https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from api.kinds import SCALE, STATUS, Kind, Subresource
from api.objects import Object, uid_of
from api.schema.custom.type import family_of

VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def rows_of(definition: Object) -> tuple[Kind, ...]:
    """The rows of an established definition, its newest version first (and so preferred)."""
    spec, metadata = definition["spec"], definition["metadata"]
    names = (definition.get("status") or {}).get("acceptedNames") or spec["names"]
    stamp = f"{uid_of(definition)}/{metadata.get('generation')}"
    versions = sorted(spec["versions"], key=lambda version: version_rank(version["name"]))
    family = family_of(definition, stamp)
    stored_as = (spec["group"], names["plural"])
    return tuple(
        Kind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            verbs=VERBS if version["served"] else (),
            singular=names.get("singular") or "",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=_subresources(version),
            stored_as=None if version["storage"] else stored_as,
            selectable_fields=_selectable(version),
            custom=family.types[f"{spec['group']}/{version['name']}"],
            reshaped=len(versions) > 1 or (metadata.get("generation") or 1) > 1,
        )
        for version in versions
        if version["served"] or version["storage"]
    )


def version_rank(name: str) -> tuple[Any, ...]:
    """Sorts versions as Kubernetes prefers them: v10, v2, v1, v2beta1, v1alpha3, then others by name."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return (1, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (0, stage, -int(match[1]), -int(match[3] or 0))


def _subresources(version: Mapping[str, Any]) -> tuple[Subresource, ...]:
    wanted = version.get("subresources") or {}
    return tuple(sub for name, sub in (("status", STATUS), ("scale", SCALE)) if name in wanted)


def _selectable(version: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ())
