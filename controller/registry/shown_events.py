"""Stored changes as the watchers of a view see them.

Called by the Registry. Conversions may take a webhook: each record is converted once for all who watch in that version,
and what selectors say is judged on what is shown. Invariant: one event in, at most one out, in the same order.
"""

from __future__ import annotations

import asyncio

from api.errors import ApiError
from api.kinds import Kind
from api.schema.custom.type import custom_of
from controller.registry.conversion import Converter
from controller.registry.views import indexed, outward_all
from controller.store import Query
from controller.store.types import ENCODED, Event, Record
from controller.store.watchers import translated

_Wanted = tuple[Event, Record, str]
"""A record of an event, and the name under which the event keeps it as it is shown."""


async def shown_events(converter: Converter, kind: Kind, events: list[Event], query: Query | None) -> list[Event]:
    """Events as `kind` shows them; with a query: what it selects, entering as ADDED and leaving as DELETED.

    Raises ApiError when a conversion fails.
    """
    if query is None and not kind.is_view:
        return events
    schema = custom_of(kind)
    form = f"{kind.api_version} {schema.stamp if schema is not None else ''}"
    wanted: list[_Wanted] = [(event, event.record, form) for event in events]
    if query is None:
        shown = await _once(converter, kind, wanted)
        return [Event(event.type, record, event.previous) for event, record in zip(events, shown, strict=True)]
    wanted += [(event, event.previous, f"{form} before") for event in events if event.previous is not None]
    records = iter([indexed(kind, record) for record in await _once(converter, kind, wanted)])
    now = [next(records) for _ in events]
    found = []
    for event, record in zip(events, now, strict=True):
        before = next(records) if event.previous is not None else None
        seen = translated(query, Event(event.type, record, before))
        if seen is not None:
            found.append(seen)
    return found


async def _once(converter: Converter, kind: Kind, wanted: list[_Wanted]) -> list[Record]:
    """The shown records; the first who asks converts, the others wait for it, and take over when it is cancelled."""
    if not kind.is_view:
        return [record for _, record, _ in wanted]
    while True:
        mine = [each for each in wanted if each[2] not in each[0].forms]
        for event, _, form in mine:
            event.forms[form] = asyncio.get_running_loop().create_future()
        futures: list[asyncio.Future[Record]] = [event.forms[form] for event, _, form in wanted]
        if mine:
            await _convert(converter, kind, mine)
        if not any(future.cancelled() for future in futures):
            await asyncio.wait(futures)
        if not any(future.cancelled() for future in futures):
            return [future.result() for future in futures]


async def _convert(converter: Converter, kind: Kind, mine: list[_Wanted]) -> None:
    """Fills the futures of `mine`, or takes them away again: a later event may have better luck."""
    try:
        shown = await outward_all(converter, kind, [record for _, record, _ in mine])
    except BaseException as error:
        for event, _, form in mine:
            future = event.forms.pop(form)
            if isinstance(error, ApiError):
                future.set_exception(error)
                future.exception()  # whoever waits is told; nobody has to wait
            else:
                future.cancel()
        raise
    for (event, _, form), record in zip(mine, shown, strict=True):
        event.forms[form].set_result(record)
        ENCODED.keep(event, len(record.raw))
