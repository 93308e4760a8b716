"""A member goes out of a JSON text, and every other byte stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from farmhand.billing.draft import without_member

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    env=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    value=JSON,
    outer=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    indent=st.sampled_from([None, 0, 2]),
    ascii_=st.booleans(),
)
def test_it_is_the_same_as_deleting_it(
    env: dict[str, Any], value: Any, outer: dict[str, Any], indent: int | None, ascii_: bool
) -> None:
    tree = {**outer, "env": {**env, "KEY": value}}
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii_)
    new = without_member(text, ("env", "KEY"))
    assert new is not None
    del tree["env"]["KEY"]
    assert json.loads(new) == tree
    assert without_member(new, ("env", "KEY")) is None


def test_formatting_stays() -> None:
    text = '{ "a" : [1,2],\n\n\t"env": {"X":"}", "KEY" :\t"v\\"}" , "Y":2},\r\n"z":null }\n'
    assert without_member(text, ("env", "KEY")) == '{ "a" : [1,2],\n\n\t"env": {"X":"}", "Y":2},\r\n"z":null }\n'
    assert without_member(text, ("z",)) == '{ "a" : [1,2],\n\n\t"env": {"X":"}", "KEY" :\t"v\\"}" , "Y":2} }\n'


def test_what_is_not_there_is_none() -> None:
    assert without_member("{}", ("env", "KEY")) is None
    assert without_member('{"env": []}', ("env", "KEY")) is None
    assert without_member("[]", ("a",)) is None
