"""What of an agent's answers is believed: type, range, size, depth; and what a newer agent may say besides."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from farmhand.agent.http import server
from farmhand.core import task
from farmhand.wire import contract, schema
from farmhand.wire.decode import Misfit, decode
from tests.support.hostile import STATUS, Agent


def status(**fields: Any) -> Any:
    return decode(json.dumps({**STATUS, **fields}).encode(), schema.StatusAnswer)


def test_what_an_agent_says_is_taken_as_it_is() -> None:
    assert status(later={"a": [1, 2.5, None, True, "é\u202e"]})["later"] == {"a": [1, 2.5, None, True, "é\u202e"]}
    result = Agent("a").result("t") | {"structured": {"n": 2**63, "f": 1e300}, "labels": {"a": "b"}}
    assert decode(json.dumps({"task": result}).encode(), schema.TaskAnswer)["task"] == result
    assert decode(b"{}", schema.StatusAnswer) == {}


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
        (b'{"running": -1}', r">= 0 - at `\$.running`"),
        (b'{"running": true}', r"Expected `int`, got `bool` - at `\$.running`"),
        (b'{"running": 1.0}', r"Expected `int`, got `float` - at `\$.running`"),
        (b'{"slots": {"api": {"total": 1}}}', r"missing required field `free` - at `\$.slots\[\.\.\.\]`"),
        (b'{"waiting": [{"reason": "x"}, {"reason": 1}]}', r"Expected `str`, got `int` - at `\$.waiting\[1\].reason`"),
        (b'{"version": "' + b"a" * 257 + b'"}', r"length <= 256 - at `\$.version`"),
        (b'"x"', "Expected `object`, got `str`"),
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
    ],
)
def test_what_does_not_fit_is_named(data: bytes, words: str) -> None:
    with pytest.raises(Misfit, match=words):
        decode(data, schema.StatusAnswer)


def test_lone_surrogates_become_the_replacement_character_and_pairs_stay() -> None:
    found = decode(b'{"a\\ud83d": "\\ud83d\\ude00 \\udc00", "raw": "\xed\xa0\xbd"}', Any)
    assert found["a\ufffd"] == "\U0001f600 \ufffd"
    json.dumps(found, ensure_ascii=False).encode()


def test_of_one_name_twice_the_last_is_checked_and_used() -> None:
    assert decode(b'{"running": -1, "running": 2}', schema.StatusAnswer)["running"] == 2
    with pytest.raises(Misfit):
        decode(b'{"running": 2, "running": -1}', schema.StatusAnswer)


def test_size_and_number_of_values_are_bounded_before_anything_is_made() -> None:
    with pytest.raises(Misfit, match="longer than 10 bytes"):
        decode(b" " * 11, Any, 10)
    with pytest.raises(Misfit, match="more than 65536 values"):
        decode(b"[" + b"{}," * 50_000 + b"{}]", Any, 1 << 20)
    # What stands in a text is no value.
    text = json.dumps({"text": "[{,:" * 100_000 + '\\" '}).encode()
    assert decode(text, Any, 1 << 20)["text"].startswith("[{,:")


def test_the_answers_are_of_the_vocabulary() -> None:
    assert set(task.Result.__struct_fields__) == set(schema.TaskResult.__struct_fields__) - {"finish_seq"}


def test_the_printed_schema_is_current() -> None:
    """`python -m farmhand.wire.contract > docs/wire.schema.json` makes it so."""
    copy = Path(__file__).resolve().parents[3] / "docs" / "wire.schema.json"
    assert copy.read_text() == contract.text()


def test_the_printed_schema_has_every_route_of_the_agent() -> None:
    source = "".join(path.read_text() for path in Path(server.__file__).parent.glob("*.py"))
    routes = {(verb.upper(), path) for verb, path in re.findall(r'web\.(get|put|post|delete)\("(/v1/[^"]+)"', source)}
    assert routes == {(method, path) for method, path, _, _ in contract.CALLS}
