"""Patches as kubectl makes them from two states of an object, written for the tests.

Strategic merge with all its directives (`$setElementOrder`, `$patch: delete`, `$retainKeys`,
`$deleteFromPrimitiveList`), JSON merge patch and JSON patch. Each is what a client would send to get from one state to
the other. Rules: k8s.io/apimachinery/pkg/util/strategicpatch (CreateTwoWayMergePatch), RFC 7386, RFC 6902.
"""

from __future__ import annotations

from typing import Any

from api.objects import Object
from api.schema import Node


def strategic_diff(old: Object, new: Object, node: Node | None, *, retain: bool = False) -> Object:
    """The strategic merge patch from `old` to `new`; {} when they are equal."""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        below = node.field(key) if node is not None else None
        if key not in old:
            patch[key] = value
        elif old[key] != value:
            _diff_field(patch, key, (old[key], value), below)
    if patch and retain:
        patch["$retainKeys"] = sorted(new)
    return patch


def _diff_field(patch: Object, key: str, states: tuple[Any, Any], node: Node | None) -> None:
    old, new = states
    strategy = node.patch_strategy if node is not None else ()
    if isinstance(old, dict) and isinstance(new, dict) and "replace" not in strategy:
        patch[key] = strategic_diff(old, new, node, retain="retainKeys" in strategy)
    elif isinstance(old, list) and isinstance(new, list) and node is not None and "merge" in strategy:
        _diff_list(patch, key, states, node)
    else:
        patch[key] = new


def _diff_list(patch: Object, key: str, states: tuple[list[Any], list[Any]], node: Node) -> None:
    old, new = states
    name = node.patch_merge_key
    if not name:
        patch[f"$setElementOrder/{key}"] = new
        if gone := [item for item in old if item not in new]:
            patch[f"$deleteFromPrimitiveList/{key}"] = gone
        if added := [item for item in new if item not in old]:
            patch[key] = added
        return
    patch[f"$setElementOrder/{key}"] = [{name: item[name]} for item in new]
    before = {item[name]: item for item in old}
    changed: list[Object] = []
    for item in new:
        known = before.pop(item[name], None)
        if known is None:
            changed.append(item)
        elif known != item:
            change = strategic_diff(known, item, node.element, retain="retainKeys" in node.patch_strategy)
            changed.append({**change, name: item[name]})
    changed += [{"$patch": "delete", name: gone} for gone in before]
    if changed:
        patch[key] = changed


def merge_diff(old: Object, new: Object) -> Object:
    """The JSON merge patch from `old` to `new`. Neither may hold nulls: a merge patch cannot write them."""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if value != old[key]:
                patch[key] = merge_diff(old[key], value)
        elif key not in old or old[key] != value:
            patch[key] = value
    return patch


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


class Impossible(Exception):
    """An operation of a JSON patch cannot be carried out."""


def carried_out(document: Any, operations: list[Object]) -> Any:
    """RFC 6902 with the API server's liberties, on a document that is not changed. Raises Impossible."""
    for operation in operations:
        verb, path, value = operation["op"], _steps(operation["path"]), operation.get("value")
        origin = _steps(operation.get("from", ""))
        if verb in ("move", "copy"):
            value = _found(document, origin)
        if not path and not (verb in ("replace", "test") and isinstance(value, dict | list)):
            raise Impossible("the whole document")
        if verb == "test":
            if not equal(_found(document, path) if path else document, value):
                raise Impossible("test")
        elif verb == "remove":
            document = _without(document, path)
        else:
            if verb == "move":
                document = _without(document, origin)
            elif verb == "replace" and path and isinstance(_at(document, path[:-1]), list):
                items = _at(document, path[:-1])
                path = [*path[:-1], str(_index(items, path[-1], len(items)))]
                document = _without(document, path)
            document = _with(document, path, value) if path else value
    return document


def _found(document: Any, path: list[str]) -> Any:
    """What is there; null where a map lacks it."""
    if not path:
        raise Impossible("the whole document")
    holder = _at(document, path[:-1])
    return holder.get(path[-1]) if isinstance(holder, dict) else _at(holder, path[-1:])


def equal(left: Any, right: Any) -> bool:
    """Equality of JSON texts: 1, 1.0 and true are three things."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _index(items: list[Any], step: str, size: int) -> int:
    """The place meant, of `size`; -1 is the last."""
    if not step.removeprefix("-").isdecimal() or int(step) not in range(-size, size):
        raise Impossible(step)
    return int(step) % size


def _at(document: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(document, list):
            document = document[_index(document, step, len(document))]
        elif isinstance(document, dict) and step in document:
            document = document[step]
        else:
            raise Impossible(step)
    return document


def _with(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    step, *rest = path
    if rest:
        inner = _with(_at(document, [step]), rest, value)
        if isinstance(document, dict):
            return {**document, step: inner}
        place = _index(document, step, len(document))
        return [*document[:place], inner, *document[place + 1 :]]
    if isinstance(document, dict):
        return {**document, step: value}
    if not isinstance(document, list):
        raise Impossible(step)
    place = len(document) if step == "-" else _index(document, step, len(document) + 1)
    return [*document[:place], value, *document[place:]]


def _without(document: Any, path: list[str]) -> Any:
    if not path:
        raise Impossible("the whole document")
    step, *rest = path
    inner = _at(document, [step])
    if isinstance(document, dict):
        kept = {key: value for key, value in document.items() if key != step}
        return {**document, step: _without(inner, rest)} if rest else kept
    place = _index(document, step, len(document))
    return [*document[:place], *([_without(inner, rest)] if rest else []), *document[place + 1 :]]
