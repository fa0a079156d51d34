"""Strategic merge patch: maps merge, lists merge by the key that the schema names for them.

Directives, as kubectl sends them: `$patch: delete|replace|merge` in a map or list element, `$retainKeys`,
`$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`; null deletes. Called through api.patch; rules of
k8s.io/apimachinery/pkg/util/strategicpatch and
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/. Where a list has further
keys (a port's protocol), an element that agrees in all of them is preferred to the first that agrees in the merge key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.errors import BadRequest, Unexplained, UnsupportedMediaType
from api.objects import Object
from api.patch.json import unmarshal_fault
from api.schema.nodes import Node

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_BAD_PRIMITIVE = "invalid patch format of primitive list"
_BAD_RETAIN = "invalid patch format of retainKeys"
_BAD_ORDER = "invalid patch format of setElementOrder list"

_ACCEPTED = (
    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
    "application/merge-patch+json, application/apply-patch+yaml"
)

_ANY = Node()


def strategic_merge(obj: Object, patch: Any, schema: Node | None) -> Object:
    """`obj` (which is changed) with the patch merged in.

    Raises BadRequest for a malformed patch, Unexplained where Kubernetes itself has no better word for it than 500,
    UnsupportedMediaType for a kind without a schema (custom resources).
    """
    if schema is None or schema.custom is not None:
        raise UnsupportedMediaType(_ACCEPTED)
    if patch is not None and not isinstance(patch, dict):
        raise BadRequest(unmarshal_fault(patch))
    return _merge_map(obj, patch or {}, schema)


def _merge_map(original: Object, patch: Object, schema: Node) -> Object:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        del patch[_DIRECTIVE]
        return patch
    if directive == "delete":
        return {}
    if directive == "merge":
        del patch[_DIRECTIVE]
    elif directive is not None:
        raise BadRequest(f"unknown patch type: {directive} in map: {_shown(patch)}")
    _retain_keys(original, patch)
    for key in sorted(key for key in patch if key.startswith("$")):  # deletions before the order
        value = patch.pop(key)
        if key.startswith(_ORDER):
            _merge_ordered(original, patch, key.removeprefix(_ORDER), value, schema)
        elif key.startswith(_DELETE_FROM):
            _delete_from(original, key.removeprefix(_DELETE_FROM), value)
        else:
            raise BadRequest(_BAD_PRIMITIVE if key.startswith(_DELETE_FROM[:-1]) else _BAD_ORDER)
    for key, value in patch.items():
        _merge_field(original, key, value, schema.field(key) or _ANY)
    return original


def _merge_field(original: Object, key: str, value: Any, schema: Node) -> None:
    current = original.get(key)
    if value is None:
        original.pop(key, None)
    elif isinstance(value, dict) and isinstance(current, dict):
        replaced = "replace" in schema.patch_strategy
        original[key] = _cleaned(value) if replaced else _merge_map(current, value, schema)
    elif isinstance(value, list) and isinstance(current, list):
        original[key] = _merge_list(current, value, schema)
    else:
        original[key] = _cleaned(value)
        if original[key] is None:
            del original[key]


def _retain_keys(original: Object, patch: Object) -> None:
    """`$retainKeys` lists the only fields that may stay: how a union (strategy, volume source) changes its kind."""
    if _RETAIN not in patch:
        return
    retained = patch.pop(_RETAIN)
    if not isinstance(retained, list):
        raise BadRequest(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not key.startswith((_ORDER, _DELETE_FROM)) and key not in retained:
            raise BadRequest(_BAD_RETAIN)
    for key in [key for key in original if key not in retained]:
        del original[key]


def _delete_from(original: Object, key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest(_BAD_PRIMITIVE)
    if isinstance(original.get(key), list):
        gone = {repr(value) for value in values}
        original[key] = [item for item in original[key] if repr(item) not in gone]


def _merge_ordered(original: Object, patch: Object, key: str, order: Any, schema: Node) -> None:
    """Merges the list and puts its elements into `order`; elements only the server has keep their relative place."""
    if not isinstance(order, list):
        raise BadRequest(_BAD_ORDER)
    node = schema.field(key) or _ANY
    current, change = original.get(key), patch.pop(key, None)
    if any(value is not None and not isinstance(value, list) for value in (current, change)):
        raise BadRequest(_BAD_ORDER)
    if current is None and change is None:
        return
    if change:
        _check_order(change, order, node.patch_merge_key)
    before = list(current or ())
    merged = _merge_list(list(before), change, node) if current is not None and change is not None else None
    if merged is None:
        merged = before if change is None else _cleaned(change)
    original[key] = _ordered(merged, order, before, node.patch_merge_key)


def _check_order(change: Sequence[Any], order: Sequence[Any], merge_key: str) -> None:
    """The patch's elements must appear in the order list, in the same relative order."""
    position = 0
    for element in change:
        if isinstance(element, dict) and _DIRECTIVE in element:
            continue
        wanted = _identity(element, merge_key)
        while position < len(order) and _identity(order[position], merge_key) != wanted:
            position += 1
        if order and position >= len(order):
            raise Unexplained(
                f"The order in patch list:\n{_shown(list(change))}\n doesn't match $setElementOrder list:\n"
                f"{_shown(list(order))}\n"
            )
        position += 1


def _merge_list(original: list[Any], patch: list[Any], schema: Node) -> list[Any]:
    if "merge" not in schema.patch_strategy:
        cleaned: list[Any] = _cleaned(patch)
        return cleaned
    if not original and not patch:
        return original
    key = schema.patch_merge_key
    if not any(isinstance(item, dict) for item in (*original, *patch)):
        merged = [*{repr(item): item for item in (*original, *patch)}.values()]
        return _ordered(merged, patch, original, "")
    if not key:
        raise Unexplained("cannot merge lists without merge key")
    kept, changes, replaced = _special_elements(original, patch, key)
    if replaced:
        return changes
    element = schema.element or _ANY
    merged = list(kept)
    places = _Places(merged, schema)
    for change in changes:
        place = places.find(change)
        if place is None:
            merged.append(_cleaned(change))
            places.add(len(merged) - 1, merged[-1])
        else:
            merged[place] = _merge_map(merged[place], change, element)
    return _ordered(merged, changes, kept, key)


def _special_elements(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any], bool]:
    """(what stays of the original, elements to merge, whether they replace all)."""
    plain: list[Any] = []
    gone: set[str] = set()
    replaced = False
    for element in patch:
        if not isinstance(element, dict):
            raise BadRequest(f"expected a map[string]interface {{}}, but received a {type(element).__name__}")
        directive = element.get(_DIRECTIVE)
        if directive is None or (directive == "merge" and key in element):
            plain.append({name: value for name, value in element.items() if name != _DIRECTIVE})
        elif directive == "delete":
            gone.add(_key(element, key))
        elif directive == "replace":
            replaced = True
        elif directive == "merge":
            raise BadRequest("merging lists cannot yet be specified in the patch")
        else:
            raise BadRequest(f"unknown patch type: {directive} in map: {_shown(element)}")
    if replaced:
        plain = _cleaned(plain)
    if gone:
        original = [item for item in original if _key(item, key) not in gone]
    return original, plain, replaced


class _Places:
    """Where the elements of a list are, by merge key and, where several share one, by the other keys of the list."""

    def __init__(self, elements: Sequence[Any], schema: Node) -> None:
        self._elements = elements
        self._key = schema.patch_merge_key
        self._others = tuple(name for name in schema.list_map_keys if name != self._key)
        self._indexes: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        self._index(())

    def find(self, change: Object) -> int | None:
        """The first element with all the keys that the change names, else the first with its merge key."""
        names = tuple(name for name in self._others if name in change)
        exact = self._index(names).get(self._value(change, names)) if names else None
        return exact if exact is not None else self._index(()).get(self._value(change, ()))

    def add(self, place: int, element: Any) -> None:
        for names, index in self._indexes.items():
            index.setdefault(self._value(element, names), place)

    def _index(self, names: tuple[str, ...]) -> dict[tuple[str, ...], int]:
        index = self._indexes.get(names)
        if index is None:
            index = self._indexes[names] = {}
            for place, element in enumerate(self._elements):
                index.setdefault(self._value(element, names), place)
        return index

    def _value(self, element: Any, names: tuple[str, ...]) -> tuple[str, ...]:
        return (_key(element, self._key), *(repr(element.get(name)) for name in names))


def _identity(element: Any, merge_key: str) -> Any:
    """What tells elements apart: the merge key's value, or a scalar itself."""
    if not merge_key:
        return element
    if not isinstance(element, dict):
        raise BadRequest(_BAD_ORDER)
    if merge_key not in element:
        raise Unexplained(f"map: {_shown(element)} does not contain declared merge key: {merge_key}")
    return element[merge_key]


def _ordered(merged: list[Any], wanted: list[Any], live: list[Any], merge_key: str) -> list[Any]:
    """Elements named in `wanted` in its order; the server's own woven in by their place in `live`."""
    order = _places(wanted, merge_key)
    places = _places(live, merge_key)
    named = [item for item in merged if _key(item, merge_key) in order]
    named.sort(key=lambda item: order[_key(item, merge_key)])
    own = [item for item in merged if _key(item, merge_key) not in order]
    own.sort(key=lambda item: places.get(_key(item, merge_key), len(places)))
    woven: list[Any] = []
    for item in named:
        place = places.get(_key(item, merge_key))
        while place is not None and own and places.get(_key(own[0], merge_key), place) < place:
            woven.append(own.pop(0))
        woven.append(item)
    return woven + own


def _key(element: Any, merge_key: str) -> str:
    return repr(_identity(element, merge_key))


def _places(elements: list[Any], merge_key: str) -> dict[str, int]:
    places: dict[str, int] = {}
    for index, element in enumerate(elements):
        places.setdefault(_key(element, merge_key), index)
    return places


def _cleaned(value: Any) -> Any:
    """A patch value that becomes content: without nulls in maps and without directives. None: nothing is left."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None
        pairs = ((key, _cleaned(item)) for key, item in value.items() if item is not None and not key.startswith("$"))
        return {key: item for key, item in pairs if item is not None}
    if isinstance(value, list):
        return [cleaned for item in value if (cleaned := _cleaned(item)) is not None or item is None]
    return value


def _shown(value: Any) -> str:
    """A value as Go's %v prints it, because Kubernetes' messages do."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_shown, value)) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)
