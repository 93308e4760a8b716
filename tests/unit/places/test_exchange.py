from __future__ import annotations

import json
from dataclasses import replace

from farmhand.core.errors import FarmUnreachable, Refused, WireMismatch
from farmhand.places.base import Limit, Order
from farmhand.places.exchange import decode, encode

ORDER = Order(
    batch="b", cancel=["x"], tasks=[b'{"id":"a"}', b'{"id":"b"}'], credential="k", cursor=7, low=2, wait_s=1.5
)


def test_an_order_is_a_turn() -> None:
    turn = {"batch": "b", "cancel": ["x"], "key": "k", "stop": False, "after": 7, "low": 2, "wait_s": 1.5}
    turn["tasks"] = [{"id": "a"}, {"id": "b"}]
    assert json.loads(encode(ORDER)) == turn
    limited = json.loads(encode(replace(ORDER, tasks=[], limit=Limit(pico=5 * 10**11))))
    assert (limited["tasks"], limited["limits"]) == ([], {"max_usd": 0.5, "concurrency": None})


def test_an_answer_is_a_reply() -> None:
    slots = {"api": {"total": 30, "free": 1}, "cli": {"total": 2, "free": 2}}
    reply = decode(json.dumps({"taken": ["a"], "slots": slots, "unfinished": 3, "results": None}).encode(), "farm1")
    assert (reply.accepted, reply.slots, reply.unfinished, reply.results) == (["a"], 32, 3, [])
    assert decode(b"{}", "farm1").unfinished is None


def test_errors_name_the_worker_and_are_of_the_package() -> None:
    halted = {"code": "budget", "message": "spent", "hint": "wait"}
    error = {"code": "no_such_route", "message": "no route /v1/batches"}
    reply = decode(json.dumps({"halted": halted, "error": error}).encode(), "farm1")
    assert (type(reply.halted), str(reply.halted)) == (Refused, "farm1: spent (wait)")
    assert (type(reply.error), str(reply.error)) == (WireMismatch, "farm1: its agent is too old for batches")
    wrong = decode(b'{"unfinished": -1}', "farm1").error
    assert isinstance(wrong, FarmUnreachable)
    assert str(wrong).startswith("farm1: its answer is not one of the wire")
