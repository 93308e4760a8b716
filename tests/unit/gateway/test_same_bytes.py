"""Two hundred random bodies in Messages: what is paid for is sent as it came but for the model's name."""

from __future__ import annotations

import json
import random

from farmhand.gateway.carries import ChatOptions
from farmhand.gateway.dialects import messages, to_messages
from tests.support.paid import ATTRIBUTION, HAIKU, some_turn

OURS, THEIRS = b'"claude-opus-9"', f'"{HAIKU}"'.encode()


def test_two_hundred_bodies_keep_their_bytes() -> None:
    chance = random.Random(6)  # noqa: S311
    options = to_messages.PaidOptions(model=HAIKU)
    with_attribution = 0
    for _ in range(200):
        sent = some_turn(chance)
        turn = messages.read(sent, {})
        turn.body = sent
        got, document = to_messages.request(turn, options).body, json.loads(sent)
        places = [at for at in range(len(got)) if got.startswith(THEIRS, at)]
        # Put back, the bodies are equal byte for byte; the model is the one field that differs.
        assert [at for at in places if got[:at] + OURS + got[at + len(THEIRS) :] == sent], (sent, got)
        assert json.loads(got) == document | {"model": HAIKU}
        local = messages.native_request(turn, ChatOptions(model="m"))
        system = document.pop("system", [])
        with_attribution += bool(system)
        assert ATTRIBUTION.encode() not in local.body
        assert json.loads(local.body) == document | {"model": "m"} | ({"system": system[1:]} if system else {})
    assert 100 < with_attribution < 200
