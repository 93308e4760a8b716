"""Files beside a prompt: what is text, what is a picture or a PDF, what is refused before anything is sent."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli import prompt
from farmhand.cli.task_options import build_task
from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings
from tests.support.pictures import pdf, png
from tests.unit.cli.test_run import options


def test_a_picture_is_told_by_its_content_and_goes_beside_the_text(tmp_path: Path) -> None:
    picture, paper, notes = tmp_path / "a.txt", tmp_path / "b.jpg", tmp_path / "c.png"
    picture.write_bytes(png(3, 3))
    paper.write_bytes(pdf(1))
    notes.write_text("GIF and PNG are formats")
    task = build_task(options(file=tuple(map(str, (picture, notes, paper)))), Settings())
    assert task["prompt"] == f"p\n\n----- file: {notes} -----\nGIF and PNG are formats"
    assert task["files"] == [
        {"media_type": "image/png", "data": base64.b64encode(png(3, 3)).decode(), "name": "a.txt"},
        {"media_type": "application/pdf", "data": base64.b64encode(pdf(1)).decode(), "name": "b.jpg"},
    ]


def test_a_picture_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, png(3, 3))
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        text, [found] = prompt.assemble("look", ["-"])
    assert (text, found["media_type"], found["name"]) == ("look", "image/png", "stdin")


@pytest.mark.parametrize(
    ("data", "more", "what"),
    [
        (png(9000, 1), {}, "9000 x 1 pixels"),
        (pdf(101), {}, "has 101 pages"),
        (b"BM\x00\x00", {}, "give text, or a PNG, JPEG, GIF, WebP or PDF"),
        (png(3, 3), {"prompt": " "}, "say what to do with the file"),
        (png(3, 3) + bytes(23 * 1024**2), {}, "has more than 23068672 bytes"),
    ],
)
def test_what_cannot_be_sent_is_one_line(tmp_path: Path, data: bytes, more: dict[str, Any], what: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        build_task(options(file=(str(tmp_path / "x"),), **more), Settings())
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
