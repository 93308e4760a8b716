"""What of an agent's answers is believed: type, range, size, depth; and what a newer agent may say besides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farmhand.core import task
from farmhand.wire import schema
from farmhand.wire.schema import Misfit, decode
from tests.support.hostile import STATUS, Agent


def status(**fields: Any) -> Any:
    return decode(json.dumps({**STATUS, **fields}).encode(), schema.STATUS)


def test_what_an_agent_says_is_taken_as_it_is() -> None:
    assert status(later={"a": [1, 2.5, None, True, "é\u202e"]})["later"] == {"a": [1, 2.5, None, True, "é\u202e"]}
    result = Agent("a").result("t") | {"structured": {"n": 2**63, "f": 1e300}, "labels": {"a": "b"}}
    assert decode(json.dumps({"task": result}).encode(), schema.TASK)["task"] == result
    assert decode(b"{}", schema.STATUS) == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 200_000, "nested deeper than 100"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than 100"),
        (b'{"a": ' + b"9" * 50_000 + b"}", "a number that is too long"),
        (b'{"a": 18446744073709551616}', "64 bits do not hold"),
        (b'{"a": -9223372036854775809}', "64 bits do not hold"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": NaN}', "NaN"),
        (b'{"running": -1}', "running is -1, not 0 to"),
        (b'{"running": true}', "running is true or false, not a whole number"),
        (b'{"running": 1.0}', "running is a number, not a whole number"),
        (b'{"slots": {"api": {"total": 1}}}', "slots.api has no 'free'"),
        (b'{"waiting": [{"reason": "x"}, {"reason": 1}]}', r"waiting\[1\].reason is a number, not a string"),
        (b'{"version": "' + b"a" * 257 + b'"}', "version is longer than 256 characters"),
        (b'"x"', "is a string, not an object"),
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
    ],
)
def test_what_does_not_fit_is_named(data: bytes, words: str) -> None:
    with pytest.raises(Misfit, match=words):
        decode(data, schema.STATUS)


def test_lone_surrogates_become_the_replacement_character_and_pairs_stay() -> None:
    found = decode(b'{"a\\ud83d": "\\ud83d\\ude00 \\udc00", "raw": "\xed\xa0\xbd"}', schema.anything)
    assert found["a\ufffd"] == "\U0001f600 \ufffd"
    json.dumps(found, ensure_ascii=False).encode()


def test_of_one_name_twice_the_last_is_checked_and_used() -> None:
    assert decode(b'{"running": -1, "running": 2}', schema.STATUS)["running"] == 2
    with pytest.raises(Misfit):
        decode(b'{"running": 2, "running": -1}', schema.STATUS)


def test_size_and_number_of_values_are_bounded_before_anything_is_made() -> None:
    with pytest.raises(Misfit, match="longer than 10 bytes"):
        decode(b" " * 11, schema.anything, 10)
    with pytest.raises(Misfit, match="more than 65536 values"):
        decode(b"[" + b"{}," * 50_000 + b"{}]", schema.anything, 1 << 20)
    # What stands in a text is no value.
    text = json.dumps({"text": "[{,:" * 100_000 + '\\" '}).encode()
    assert decode(text, schema.anything, 1 << 20)["text"].startswith("[{,:")


def test_the_tables_are_of_the_vocabulary() -> None:
    assert set(task.Result.__struct_fields__) - {"structured"} == set(schema.RESULT_FIELDS) - {"done_no"}
