from __future__ import annotations

from typing import Any

import pytest

from farmhand.cli.waiting import described


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"type": "state", "state": "queued"}, ("queued", None)),
        ({"type": "waiting", "reason": "slots", "ahead": 12}, ("queued behind 12", None)),
        ({"type": "waiting", "reason": "slots", "ahead": 0}, ("queued behind no other task", None)),
        ({"type": "waiting", "reason": "slots", "ahead": "x"}, ("queued behind others", None)),
        ({"type": "waiting", "reason": "sandbox"}, ("the sandbox starts", None)),
        (
            {"type": "waiting", "reason": "api_error", "status": 529, "in_s": 8.0},
            ("the API says 529 and is asked again", 8.0),
        ),
        ({"type": "waiting", "reason": "api_error", "status": 0}, ("the API says nothing and is asked again", None)),
        ({"type": "waiting", "reason": ""}, ("the model is asked", None)),
        ({"type": "waiting", "reason": "something_new"}, ("waits: something_new", None)),
        ({"type": "state", "state": "something_new"}, None),
        ({"type": "restart", "reason": "reconnected"}, ("it is tried again", None)),
        ({"type": "text", "text": "a"}, None),
    ],
    ids=str,
)
def test_what_an_event_says_that_is_waited_for(event: dict[str, Any], said: tuple[str, float | None] | None) -> None:
    assert described(event) == said
