"""What the worker finds, in this process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.schemas.worker import check_answer, check_schema

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5, "", "1", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"pattern": {"type": "string"}, "const": {"pattern": "^a"}}},
        {"const": {"pattern": "("}, "enum": [{"pattern": "("}], "default": {"$ref": "#/nowhere"}},
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
        {"$ref": "#here", "$defs": {"n": {"$anchor": "here"}}},
        {"$defs": {"tree": {"properties": {"next": {"$ref": "#/$defs/tree"}}}}, "$ref": "#/$defs/tree"},
        {"$id": "https://example.com/s", "$ref": "other", "$defs": {"o": {"$id": "other"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"properties": {"$ref": {"type": "string"}}},
        {"pattern": "^(a+)+$"},
    ],
)
def test_schemas_that_can_be_used(schema: Any) -> None:
    assert check_schema(schema) == ""


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nothing"}, "not a JSON Schema: 'nothing' is not valid"),
        ({"properties": []}, "at properties"),
        ({"required": ["a", "a"]}, "unique"),
        ({"pattern": "("}, "'(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "'[' is not a 'regex'"),
        ({"items": {"properties": {"pattern": {"pattern": "*"}}}}, "'*' is not a 'regex'"),
        ({"allOf": [{"pattern": r"\p{L}"}]}, "is not a 'regex'"),
        ({"pattern": "a{99999999999999999999}"}, "a pattern cannot be used"),
        ({"$ref": "#/$defs/none"}, "not in it"),
        ({"$ref": "https://example.com/x"}, "not in it"),
        ({"items": {"$ref": "file:///etc/hostname"}}, "not in it"),
        ({"$ref": 5}, "not a JSON Schema"),
    ],
)
def test_schemas_that_cannot(schema: Any, says: str) -> None:
    message = check_schema(schema)
    assert says in message
    assert "\n" not in message


@given(items=st.lists(VALUES, max_size=4))
def test_unique_items_as_the_library_has_them(items: list[Any]) -> None:
    from jsonschema import Draft202012Validator

    schema = {"uniqueItems": True}
    assert (check_answer(schema, items)[0] == "") is Draft202012Validator(schema).is_valid(items)


@pytest.mark.parametrize("wanted", [False, True])
def test_thousands_of_unique_objects_are_no_matter(wanted: bool) -> None:
    items = [{"name": f"n{number}", "tags": [number, {"x": None}]} for number in range(6000)]
    assert check_answer({"uniqueItems": wanted}, items) == ("", "")
    assert check_answer({"uniqueItems": wanted}, [*items, items[0]])[0] == ("no_answer" if wanted else "")


@pytest.mark.parametrize(
    ("schema", "answer", "code"),
    [
        ({"type": "integer"}, 3, ""),
        ({"type": "integer"}, "3", "no_answer"),
        ({"pattern": "("}, "x", "invalid_schema"),
        ({"$ref": "#"}, "x", "invalid_schema"),
        ({"$ref": "http://127.0.0.1:9/x"}, "x", "invalid_schema"),
    ],
)
def test_verdicts_on_answers(schema: Any, answer: Any, code: str) -> None:
    assert check_answer(schema, answer)[0] == code
