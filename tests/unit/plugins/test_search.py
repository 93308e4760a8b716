"""Looking for keys: files, processes and the journal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmhand.plugins import search

KEY = "sk-ant-test-search-0000000000000000"


def test_key_across_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_CHUNK", 64)
    assert search.holds_key(io.BytesIO(b"x" * 50 + KEY.encode() + b"x" * 50))
    assert not search.holds_key(io.BytesIO(b"x" * 500))


def test_pattern_in_source_code_is_no_key() -> None:
    assert not search.holds_key(io.BytesIO(b're.compile("sk-ant-[A-Za-z0-9_-]{8,}"), sk-ant-test'))


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/key").write_bytes(b"\0\1" + KEY.encode())
    (tmp_path / "a/link").symlink_to("key")
    os.mkfifo(tmp_path / "a/fifo")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/original").write_text(KEY)
    (tmp_path / "plain").write_text("nothing")
    assert list(search.files([str(tmp_path)], [f"{tmp_path}/kept/"])) == [f"{tmp_path}/a/key"]


def test_processes() -> None:
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"K": KEY}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = [place for place in search.processes() if place.startswith(f"{process.pid} (")]
        assert process.stdin is not None
        process.stdin.close()
    assert [place.rsplit(": ", 1)[1] for place in found] == ["environ", "cmdline"]
    assert KEY not in "".join(found)


@pytest.mark.parametrize(("text", "found"), [(KEY, True), ("nothing", False)])
def test_journal(text: str, found: bool) -> None:
    assert search.journal(["echo", text]) is found


def test_journal_that_cannot_be_read() -> None:
    with pytest.raises(OSError, match="journalctl failed"):
        search.journal(["false"])
