"""The files of `farmhand_task`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farmhand.core.errors import WireError
from farmhand.plugins.task import read_files


def prompt(path: Path) -> Any:
    """The prompt that a prompt_file is."""
    given: dict[str, Any] = {"prompt": None, "prompt_file": str(path), "files": None}
    read_files(given, lambda _kind, name: name)
    return given["prompt"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_prompt(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "p").write_bytes("café".encode(encoding))
    assert prompt(tmp_path / "p") == "café"


@pytest.mark.parametrize(("data", "words"), [(b"a\xff", "UTF-8 at byte 1"), (b"\xff\xfea", "UTF-16 at byte")])
def test_what_is_no_text_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(WireError, match=f"prompt_file {tmp_path}/p is not valid {words}"):
        prompt(tmp_path / "p")
