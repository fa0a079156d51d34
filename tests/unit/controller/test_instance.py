"""The name of a controller process outlives it, and is never carried by two."""

from __future__ import annotations

from pathlib import Path

from controller.instance import claim_instance


def test_the_next_process_has_the_same_name_and_a_second_one_another(tmp_path: Path) -> None:
    first = claim_instance(tmp_path)
    second = claim_instance(tmp_path)
    assert first.identity != second.identity
    name = first.identity
    assert first._lock is not None and second._lock is None
    first._lock.close()
    assert claim_instance(tmp_path).identity == name


def test_two_directories_have_two_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert claim_instance(tmp_path / "a").identity != claim_instance(tmp_path / "b").identity
