from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.batch.template import BadRecord, Template
from farmhand.core.errors import UsageError


def test_columns_braces_and_values_that_are_no_text() -> None:
    template = Template("{name}: {{{ what }}} {name} {n} {list} {none}")
    columns = {"name": "Ann", "what": "{name}", "n": 1.5, "list": ["ä"], "none": None}
    assert template.fill(columns) == 'Ann: {{name}} Ann 1.5 ["ä"] '


@pytest.mark.parametrize("text", ["{", "a }", "{}", "{ }", "x {a{b}}", "{a\nb}"])
def test_braces_that_stand_alone(text: str) -> None:
    with pytest.raises(UsageError, match="line 1, character"):
        Template(text)


def test_names_are_plain_and_reach_nothing() -> None:
    with pytest.raises(BadRecord, match="it has: a"):
        Template("{a.__class__}").fill({"a": "x"})
    assert Template("{a[0]!r:>9}").fill({"a[0]!r:>9": "x"}) == "x"


@given(st.text(), st.text())
def test_text_and_values_come_through_as_they_are(text: str, value: str) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert Template(escaped + "{c}").fill({"c": value}) == text + value
