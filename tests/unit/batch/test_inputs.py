from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.batch import inputs
from farmhand.batch.inputs import Csv, Files, JsonLines
from farmhand.batch.sources import source
from farmhand.batch.template import Template, read_template
from farmhand.core.errors import UsageError


def lines(data: bytes, **defaults: Any) -> JsonLines:
    return JsonLines(io.BytesIO(data), defaults)


def table(data: str, template: str = "{prompt}") -> Csv:
    return Csv(io.BytesIO(data.encode()), {}, Template(template))


def test_tasks_prompts_blank_lines_and_defaults() -> None:
    made = lines(b'\xef\xbb\xbf{"prompt": "a"}\n\n"b"\n  \n{"prompt": "c", "model": "opus"}', model="sonnet")
    assert [(record.n, record.fields) for record in made.records()] == [
        (1, {"model": "sonnet", "prompt": "a"}),
        (3, {"model": "sonnet", "prompt": "b"}),
        (5, {"model": "opus", "prompt": "c"}),
    ]


def test_the_fingerprint_is_of_the_whole_content() -> None:
    assert lines(b'"a"\n').fingerprint() == lines(b'"a"\n').fingerprint() != lines(b'"a"\n\n').fingerprint()
    assert table("prompt\na\n").fingerprint() != table("prompt\nb\n").fingerprint()


def test_a_line_that_is_too_long_ends_the_input_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_LINE_BYTES", 20)
    long = "x" * 30
    *_, last = lines(f'"a"\n"{long}"\n"b"\n'.encode()).records()
    assert (last.n, last.problem) == (2, "is longer than 20 bytes")
    *_, last = table(f"prompt\na\n{long}\nb\n").records()
    assert (last.n, last.problem) == (3, "is longer than 20 bytes")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "is not JSON"),
        (b"1", "neither an object"),
        (b'{"id": "x", "id": "y"}', "has the key 'id' twice"),
    ]
    + [(b'"\xff"', "UTF-8 at byte 1"), (b"[" * 9999, "is not JSON")]
    + [
        (line, r"has half a character, \ud83d")
        for line in (
            rb'"half \ud83d smile"',
            rb'{"prompt": "x", "id": "\uD83D"}',
            rb'{"prompt": "x", "labels": {"a": "\ud83d"}}',
            rb'{"prompt": "x", "labels": {"\ud83d": "a"}}',
            rb'{"prompt": "x", "schema": {"enum": [["\ud83d"]]}}',
        )
    ],
)
def test_lines_that_are_no_tasks_say_so_and_the_next_go_on(line: bytes, words: str) -> None:
    first, second = lines(line + b'\n"fine"').records()
    assert first.fields is None
    assert words in first.problem
    assert (second.n, second.fields) == (2, {"prompt": "fine"})


def test_a_whole_character_in_two_escapes_is_one() -> None:
    [record] = lines(rb'"a \ud83d\ude00 smile, \\ud83d"').records()
    assert record.fields == {"prompt": "a 😀 smile, \\ud83d"}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_may_be_divided_as_spreadsheets_do(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f'\ufeffname{mark}topic\r\nAnna{mark}"a,b;c"\r\n'.encode())
    made, _ = source([str(path)], "auto", "{name}: {topic}", {})
    [record] = made.records()
    assert record.fields == {"prompt": "Anna: a,b;c"}


@pytest.mark.parametrize(
    "text",
    ['"na,me";topic\nAnn;hens\n', "sep=;\r\nname;topic\r\nAnn;hens\r\n", '\ufeffsep=,\nname,topic\nAnn,"hens"\n'],
)
def test_what_a_header_says_of_the_delimiter(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    made, _ = source([str(path)], "auto", "{topic}", {})
    [record] = made.records()
    assert (record.n, record.fields) == (text.count("\n"), {"prompt": "hens"})


def test_files_whose_names_or_texts_are_not_utf_8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.write_text("x")
    bad = tmp_path / "bad"
    bad.write_bytes(b"a\nb\xff")
    made = Files([odd, bad, odd.with_name(odd.name + "2")], {}, Template("{name}: {text}"))
    first, second, third = made.records()
    assert first.fields == {"prompt": "caf\ufffd: x", "labels": {"path": f"{tmp_path}/caf\ufffd"}}
    assert (made.where(2), second.problem) == (str(bad), "is not valid UTF-8 at byte 3, in line 2")
    assert (made.where(3), third.problem) == (f"{tmp_path}/caf\ufffd2", "cannot be read: No such file or directory")


def test_a_device_is_no_input() -> None:
    with pytest.raises(UsageError, match="/dev/zero is a device"):
        source(["/dev/zero"], "auto", None, {})
    empty, _ = source([os.devnull], "auto", None, {})
    assert list(empty.records()) == []


def test_a_template_that_is_not_utf_8() -> None:
    with pytest.raises(UsageError, match="--template is not valid UTF-8"):
        source(["x"], "jsonl", "{a}\udcff", {})


def test_csv_values_may_hold_quotes_and_lines() -> None:
    made = table('id,prompt\n1,"a ""b"",\n c"\n\n2,é\n')
    records = list(made.records())
    assert [(record.n, record.fields) for record in records] == [
        (2, {"prompt": 'a "b",\n c', "id": "1"}),
        (5, {"prompt": "é", "id": "2"}),
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a,a\n1,2\n", "the column 'a' twice"),
        ("a,\n1,2\n", "an empty column"),
        ("prompt\n1,2\n", "has 2 values, the header has 1"),
        ("other\n1\n", "has no column 'prompt' (it has: other)"),
        ("prompt\ra\rb\r", "has a carriage return that no line feed follows"),
        ('prompt\n"a"b\n', "is not CSV"),
        ('prompt\n"never ends', "is not CSV"),
    ],
)
def test_csv_that_is_wrong(data: str, words: str) -> None:
    problems = [record.problem for record in table(data).records() if record.problem]
    assert words in problems[0]


def test_csv_lacks_a_column_once_and_may_begin_with_blank_lines() -> None:
    found = [(record.n, record.problem) for record in table("\r\nother\r\n1\r\n2\r\n").records()]
    assert found == [(2, "has no column 'prompt' (it has: other)")]
    assert [record.fields for record in table("\n\nprompt\na\n").records()] == [{"prompt": "a"}]


def test_csv_in_another_encoding_says_how_it_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("name\ncafé\n".encode("latin-1"))
    made, _ = source([str(path)], "auto", "{name}", {})
    *_, last = made.records()
    assert last.problem.endswith("perhaps with iconv -f WINDOWS-1252 -t UTF-8)")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_windows_writes_is_read_and_its_mark_is_not_paid_for(tmp_path: Path, encoding: str) -> None:
    names = [tmp_path / name for name in ("a.csv", "a.jsonl", "a.txt", "list", "template")]
    texts = ["name\r\ncafé\r\n", '{"name": "café"}\r\n', "café", f"{names[2]}\r\n", "{name}"]
    for path, text in zip(names, texts, strict=True):
        path.write_bytes(text.encode(encoding))
    made = [source([str(path)], "auto", str(names[4]), {})[0] for path in names[:2]]
    made += [source([str(names[2 + n])], ("files", "files-from")[n], None, {})[0] for n in (0, 1)]
    for one in made:
        assert [(record.fields or {}).get("prompt") for record in one.records()] == ["café"]
    names[0].write_bytes("name\n".encode("utf-16") + b"a")
    with pytest.raises(UsageError, match=r"a\.csv is not valid UTF-16 at byte"):
        source([str(names[0])], "auto", "{name}", {})


def test_a_compressed_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'"a"\n'))
    made, _ = source([str(path)], "auto", None, {})
    assert next(iter(made.records())).problem == "is compressed (gunzip it first)"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip), max_size=5))
def test_prompts_come_out_as_they_went_in(prompts: list[str]) -> None:
    data = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts).encode()
    assert [record.fields for record in lines(data).records()] == [{"prompt": prompt} for prompt in prompts]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "sub/a.txt", ".hidden"):
        (tmp_path / name).write_text(f"in {name}")
    (tmp_path / "bad").write_bytes(b"\xff")
    made, about = source([str(tmp_path)], "files", "{name}: {text}", {"labels": {"x": "y"}})
    first, bad, second = list(made.records())
    assert f"{made.where(2)} {bad.problem}".startswith(f"{tmp_path}/bad is not valid UTF-8 at byte 0")
    assert (first.fields or {})["prompt"] == "b.txt: in b.txt"
    assert (second.fields or {})["labels"] == {"path": str(tmp_path / "sub" / "a.txt"), "x": "y"}
    assert about == {"form": "files", "template": "{name}: {text}"}
    (tmp_path / "list").write_text(f"{tmp_path}/b.txt\n\n{tmp_path}/none\n")
    listed, _ = source([str(tmp_path / "list")], "files-from", None, {})
    fine, missing = list(listed.records())
    assert (fine.fields or {})["prompt"] == "in b.txt"
    assert "No such file" in missing.problem
    matched, _ = source([f"{tmp_path}/*.txt"], "files", None, {})
    assert [record.n for record in matched.records()] == [1]
    with pytest.raises(UsageError, match="no file matches"):
        source([f"{tmp_path}/*.nothing"], "files", None, {})
    before = made.fingerprint()
    (tmp_path / "b.txt").write_text("changed")
    assert made.fingerprint() != before


def test_templates_are_texts_or_files(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("in a file {a}\n")
    assert read_template(str(path)) == "in a file {a}\n"
    assert read_template("here {a}") == "here {a}"
    with pytest.raises(UsageError, match="is no file, and as a text"):
        read_template("no-such-file.txt")
    with pytest.raises(UsageError, match="one input, not 2"):
        source(["a", "b"], "auto", None, {})
    with pytest.raises(UsageError, match="No such file"):
        source([str(tmp_path / "none")], "auto", None, {})
