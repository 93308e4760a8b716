"""Each refused row of the tables for Responses refuses a request that has it, by its JSON path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from farmhand.gateway.carries import TABLES
from farmhand.gateway.turn import CannotCarry
from tests.unit.gateway.requests import ABLE, of_responses, request

C = "canary-5520"
CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "1", "output": "x"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}
TOOL = {"type": "function", "name": "f", "parameters": {}}


def said(part: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return of_responses({"role": role, "content": [part]})


#: Table → a request that has the row `name`, and the path of what is refused.
PLACES: dict[str, Callable[[str], tuple[dict[str, Any], str]]] = {
    "responses.request": lambda name: (of_responses(**{name: C}), name),
    "responses.items": lambda name: (of_responses({"type": name, "id": C}), "input[0]"),
    "responses.function_call": lambda name: (of_responses(CALL | {name: C}), f"input[0].{name}"),
    "responses.function_call_output": lambda name: (of_responses(RESULT | {name: C}), f"input[0].{name}"),
    "responses.parts": lambda name: (said({"type": name, "data": C}), "input[0].content[0]"),
    "responses.output_text": lambda name: (
        said({"type": "output_text", "text": "x", name: [C]}, "assistant"),
        f"input[0].content[0].{name}",
    ),
    "responses.input_image": lambda name: (said(IMAGE | {name: C}), f"input[0].content[0].{name}"),
    "responses.tools": lambda name: (of_responses(tools=[TOOL, {"type": name, "name": C}]), "tools[1]"),
    "responses.tool": lambda name: (of_responses(tools=[TOOL | {name: C}]), f"tools[0].{name}"),
    "responses.tool_choices": lambda name: (
        of_responses(tools=[TOOL], tool_choice={"type": name, "name": C}),
        "tool_choice",
    ),
}
REFUSED = [(place, name) for place in TABLES if place.startswith("responses.") for name in TABLES[place].refused]


@pytest.mark.parametrize(("place", "name"), REFUSED)
def test_a_refused_row_is_refused_by_its_path(place: str, name: str) -> None:
    body, path = PLACES[place](name)
    with pytest.raises(CannotCarry) as lost:
        request("responses", body, ABLE)
    assert lost.value.path == path
    assert C not in str(lost.value)


def test_a_version_of_a_row_is_the_row() -> None:
    with pytest.raises(CannotCarry, match="runs at the provider"):
        request("responses", of_responses(tools=[{"type": "web_search_2025_08_26"}]), ABLE)
