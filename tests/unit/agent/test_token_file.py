"""A join token that no other user of the machine sees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from agent.config import parse_arguments

SERVER = ["--server", "https://192.0.2.1:6443"]


def test_a_token_comes_from_a_file_or_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("wherry1.abc\n")
    assert parse_arguments([*SERVER, "--token-file", str(file)]).token == "wherry1.abc"
    monkeypatch.setattr("sys.stdin", io.StringIO("wherry1.def\n"))
    assert parse_arguments([*SERVER, "--token-file", "-"]).token == "wherry1.def"


def test_a_token_file_that_is_not_there_or_empty_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    for name, told in (("gone", "No such file or directory"), ("empty", "is empty: `wherry token create`")):
        with pytest.raises(SystemExit):
            parse_arguments([*SERVER, "--token-file", str(tmp_path / name)])
        assert f"--token-file {tmp_path / name}" in (text := capsys.readouterr().err) and told in text
