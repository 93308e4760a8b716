from __future__ import annotations

import base64
import zlib

import pytest

from farmhand.core import attachments, rules
from farmhand.core.attachments import MAX_IMAGE, PDF, media_type, pages, problem
from farmhand.core.task import Attachment, EarlierTurn, Task
from tests.support.pictures import jpeg, pdf, png, webp


def attached(data: bytes, kind: str = "image/png", name: str = "") -> Attachment:
    return Attachment(media_type=kind, data=base64.b64encode(data).decode(), name=name)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(2, 2), "image/png"),
        (jpeg(2, 2), "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (webp(2, 2), "image/webp"),
        (pdf(1), PDF),
        (b"plain text", ""),
        (b"RIFF....WAVE", ""),
        (b"BM6", ""),
        (b"", ""),
    ],
)
def test_a_file_is_what_its_content_says(data: bytes, kind: str) -> None:
    assert media_type(data) == kind


def test_what_can_be_sent() -> None:
    assert problem([attached(png(8000, 10)), attached(jpeg(9, 9), "image/jpeg"), attached(pdf(100), PDF)]) == ""


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([attached(png(8001, 1), name="a.png")], "a.png has 8001 x 1 pixels, the limit of a side is 8000"),
        ([attached(png(0, 0))], "file 1 has 0 x 0 pixels"),
        ([attached(png(2001, 1))] + [attached(png(1, 1))] * 20, "the limit of a side is 2000"),
        ([attached(png(1, 1))] * 101, "there are 101 pictures and PDFs"),
        ([attached(png(1, 1) + bytes(MAX_IMAGE * 3 // 4))], "bytes as base64, the limit of a picture is 5242880"),
        ([attached(jpeg(1, 1))], "is not 'image/png' by its content"),
        ([attached(b"text")], f"is no {attachments.KINDS}"),
        ([attached(png(1, 1)[:12])], "has no readable size"),
        ([attached(pdf(101), PDF)], "has 101 pages, the limit is 100"),
        ([Attachment(media_type="image/png", data="%%%")], "is not base64"),
    ],
)
def test_what_cannot(files: list[Attachment], what: str) -> None:
    assert what in problem(files)


def test_pages_are_counted_in_packed_objects_too() -> None:
    packed = zlib.compress(b"1 0 << /Type /Pages /Kids [ 2 0 R ] /Count 140 >>")
    data = b"%PDF-1.7\n5 0 obj\n<< /Type /ObjStm /N 1 /Length 9 >>\nstream\r\n" + packed + b"\nendstream"
    assert pages(data) == 140
    assert pages(b"%PDF-1.7 nothing") is None
    assert pages(b"%PDF-1.7 << /Type /ObjStm >>\nstream\nno zlib") is None
    # A document's outline has a count of its own.
    assert pages(b"%PDF-1.7 << /Type /Outlines /Count 900 >> << /Count 3 /Type /Pages >>") == 3


def test_all_that_is_sent_counts_together() -> None:
    big = attached(pdf(1) + bytes(6 * 1024**2), PDF)
    assert problem([big] * 3) == ""
    assert "have 33555024 bytes as they are sent, the limit is 31457280" in problem([big] * 4)
    assert "the limit is" in problem([big], history=30 * 1024**2)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (
            {"history": (EarlierTurn(prompt="a", answer="b"),), "tools": ("Bash",)},
            "a conversation needs the engine api",
        ),
        ({"history": (EarlierTurn(prompt="a", answer=" "),)}, "an earlier turn of the conversation is empty"),
        ({"files": (attached(png(1, 1), name="sk-ant-test-pasted-0000"),)}, "an API key stands in a file's name"),
        ({"files": (attached(pdf(1) + bytes(8 * 1024**2), PDF),), "engine": "cli"}, "the limit is 10485760"),
        ({"history": (EarlierTurn(prompt="a", answer="b", files=(attached(b"x"),)),)}, "is no PNG"),
    ],
)
def test_the_rules_of_a_task(more: dict[str, object], what: str) -> None:
    broken = rules.check(Task(id="t", prompt="p", **more))  # type: ignore[arg-type]
    assert broken is not None
    assert what in broken.message


def test_a_host_looks_at_no_more_than_the_head() -> None:
    cut = Attachment(media_type=PDF, data=base64.b64encode(pdf(101) + bytes(300_000)).decode() + "\n\n")
    assert problem([cut], deep=False) == ""
    assert problem([cut]) != ""
