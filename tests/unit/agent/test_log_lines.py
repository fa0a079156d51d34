"""CRI log lines: reading them and choosing among them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.logs import Entry, LogOptions, log_options, parse_entry, render

LINE = b"2026-01-02T03:04:05.123456789Z stderr F hello there"
NOW = datetime(2026, 1, 2, 3, 4, 10, tzinfo=UTC)


def entry(line: bytes = LINE) -> Entry:
    parsed = parse_entry(line)
    assert parsed is not None
    return parsed


def test_a_line_is_time_stream_tag_and_text() -> None:
    assert entry() == Entry("2026-01-02T03:04:05.123456789Z", "stderr", False, b"hello there\n")
    assert entry(LINE.replace(b" F ", b" P ")).text == b"hello there"
    assert entry(LINE.replace(b"F hello there", b"F ")).text == b"\n"
    assert parse_entry(b"rubbish") is None


def test_entries_are_shown_as_asked_for() -> None:
    assert render(entry(), LogOptions()) == b"hello there\n"
    assert render(entry(), LogOptions(timestamps=True)) == b"2026-01-02T03:04:05.123456789Z hello there\n"
    assert render(entry(), LogOptions(stream="stdout")) == b""
    since = log_options({"sinceSeconds": "4"}, NOW)
    assert render(entry(), since) == b""
    assert render(entry(), log_options({"sinceSeconds": "6"}, NOW)) == b"hello there\n"


def test_options_come_from_the_query() -> None:
    query = {"follow": "true", "tailLines": "5", "limitBytes": "10", "timestamps": "1"}
    assert log_options(query, NOW) == LogOptions(True, 5, None, True, 10)
    with pytest.raises(ValueError, match="tailLines"):
        log_options({"tailLines": "x"}, NOW)
    with pytest.raises(ValueError, match="limitBytes"):
        log_options({"limitBytes": "0"}, NOW)
