"""How results are printed: aligned columns as kubectl's, YAML, JSON, ages. Pure; imports yaml only when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from api.kinds import Kind
from api.objects import Object, parse_time

_GAP = "   "


def render_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, three spaces apart, nothing after the last."""
    lines = [list(header), *[[str(cell) if cell is not None else "<none>" for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        _GAP.join([cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)] + [line[-1]])
        for line in lines
    )


def render_server_table(table: Object, *, wide: bool, with_namespace: bool) -> str:
    """A meta.k8s.io Table as kubectl prints it: columns of priority 0, with `wide` all."""
    shown = [i for i, c in enumerate(table["columnDefinitions"]) if wide or not c.get("priority")]
    header = [table["columnDefinitions"][i]["name"].upper() for i in shown]
    rows = []
    for row in table.get("rows") or ():
        cells = [row["cells"][i] for i in shown]
        if with_namespace:
            cells.insert(0, ((row.get("object") or {}).get("metadata") or {}).get("namespace", ""))
        rows.append(cells)
    return render_table(["NAMESPACE", *header] if with_namespace else header, rows)


def render_yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text.rstrip("\n")


def render_json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def render_age(timestamp: str | None, now: datetime | None = None) -> str:
    """`5s`, `3m20s`, `4h`, `2d`: the age of a time as kubectl shortens it."""
    if not timestamp:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.now(UTC)) - parse_time(timestamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"


def spoken_name(kind: Kind, name: str) -> str:
    """`deployment.apps/web`: how kubectl speaks of an object."""
    return f"{kind.kind.lower()}{'.' + kind.group if kind.group else ''}/{name}"
