"""One turn of a batch on a farm host: cancel, submit tasks, wait a little, and return results.

`jada-agent turn` runs it, with the turn as a JSON object on stdin and the answer on stdout. So a portion of a batch
costs one process on the host, and its key is only in that stdin. Everything lost with a missing answer is requested
again by the next turn: results by `after`, tasks by their ids.

A turn:   batch, key, tasks, cancel, stop, after, low, wait_s, limits {max_usd, concurrency}
An answer: schema.TurnAnswer. `halted` is why the host takes no tasks, `error` why the turn ended early
"""

from __future__ import annotations

import time
from typing import IO, Any

import msgspec

from farmhand.core.errors import WireError
from farmhand.core.keys import Credential, redact
from farmhand.wire import message
from farmhand.wire.client import Client
from farmhand.wire.follow import FINAL_STATES
from farmhand.wire.requests import TurnOrder
from farmhand.wire.schema import TurnAnswer
from farmhand.wire.transport import Transport, UnixTransport

MARK = "FARMHAND-TURN "
MAX_RESULTS_BYTES = 8 * 1024 * 1024
#: Room for the results above and one more page of them, with every character escaped.
MAX_ANSWER_BYTES = 256 * 1024 * 1024 - 4096
#: Results that arrive one by one are collected for this long.
_BREATH_S = 0.02
#: Codes of refusals that concern the host and not a task.
_HALTING = frozenset(
    {
        "draining", "budget", "ledger_stuck", "ledger_damaged", "no_such_route", "agent_error", "bad_answer",
        "bad_key", "stranger",
    }
)  # fmt: skip


class _Turn:
    """A turn in progress. `answer` has its outcome so far, also if it ends early."""

    def __init__(self, client: Client, turn: TurnOrder) -> None:
        self.client = client
        self.turn = turn
        self.batch = turn.batch
        self.answer: dict[str, Any] = {
            **{name: [] for name in ("taken", "refused", "cancelled", "stopped", "results", "waiting")},
            "next": turn.after,
        }

    def run(self) -> None:
        """Run the whole turn. Raise WireError."""
        until = time.monotonic() + self.turn.wait_s
        if self.turn.cancel:
            self.answer["cancelled"] = list(self.client.cancel_many(self.turn.cancel))
        if (limits := self.turn.limits) is not None:
            self.client.put_batch(self.batch, max_usd=limits.max_usd, concurrency=limits.concurrency)
        if self.turn.tasks:
            self._submit(self.turn.tasks, self.turn.key)
        elif self.turn.key:
            self.client.put_key(self.turn.key)
        if self.turn.stop:
            self._stop()
        self._collect(until)
        self.answer["slots"] = self.client.status().get("slots") or {}

    def _submit(self, tasks: list[dict[str, Any]], key: Credential | None) -> None:
        """Submit all tasks at once. If the agent refuses them, halve them until the refused task is alone."""
        try:
            states = self.client.submit(tasks, key)
        except WireError as error:
            if not error.status:
                raise
            if error.code in _HALTING or error.status >= 500:
                self.answer["halted"] = error.as_dict()
            elif len(tasks) == 1:
                self._refuse(tasks[0]["id"], error)
            else:
                half = len(tasks) // 2
                self._submit(tasks[:half], key)
                if "halted" not in self.answer:
                    self._submit(tasks[half:], key)
            return
        for state in states:
            self.answer["taken"].append(state["id"])
            if state["state"] in FINAL_STATES:  # it had ended before
                try:
                    self.answer["results"].append(self.client.task(state["id"]))
                except WireError as error:
                    if not error.status:
                        raise
                    self._refuse(state["id"], error)

    def _refuse(self, task_id: str, error: WireError) -> None:
        self.answer["refused"].append({"id": task_id, **error.as_dict()})

    def _stop(self) -> None:
        """Cancel the batch's tasks that have not started."""
        for state in ("queued", "awaiting_key"):
            while ids := [str(t["id"]) for t in self.client.tasks(batch=self.batch, state=state, limit=500)["tasks"]]:
                cancelled = self.client.cancel_many(ids)
                self.answer["stopped"] += [task_id for task_id, now in cancelled.items() if now == "cancelled"]
                if not any(now in FINAL_STATES for now in cancelled.values()):
                    return

    def _collect(self, until: float) -> None:
        """Collect results until few tasks are unfinished, results are many, or time is up. `rest`: there are more."""
        low, size, enough = self.turn.low, 0, False
        while True:
            left = max(0.0, min(until - time.monotonic(), 25.0))
            page = self._page(0.0 if enough else left)
            results = page["results"]
            size += sum(len(str(result.get("text") or "")) + 500 for result in results)
            self.answer["results"] += results
            self.answer["next"] = page.get("next", self.answer["next"])
            self.answer["unfinished"] = unfinished = int(page.get("unfinished") or 0)
            self.answer["waiting"] = waiting = page.get("waiting") or []
            enough = unfinished <= low or any(wait["reason"] in ("no_key", "key_refused") for wait in waiting)
            if size > MAX_RESULTS_BYTES or left <= 0 or (enough and not results):
                self.answer["rest"] = bool(results)
                return
            if results and not enough:
                time.sleep(min(_BREATH_S, left))

    def _page(self, wait_s: float) -> dict[str, Any]:
        try:
            return self.client.results(self.batch, self.answer["next"], wait_s=wait_s)
        except WireError as error:
            if error.code != "no_such_batch":
                raise
            return {"results": [], "next": self.answer["next"], "unfinished": 0}


def play(turn: TurnOrder, agent: Transport) -> dict[str, Any]:
    """Run a turn and return its answer; a failure is in its `error`."""
    with Client(agent) as client:
        playing = _Turn(client, turn)
        try:
            playing.run()
        except WireError as error:
            playing.answer["error"] = error.as_dict()
    return playing.answer


def main(socket: str, source: IO[bytes], target: IO[bytes]) -> int:
    """Read a turn, run it and write its answer."""
    try:
        answer = play(msgspec.json.decode(source.read(), type=TurnOrder), UnixTransport(socket))
    except (ValueError, RecursionError) as error:
        answer = {"error": WireError("invalid_turn", f"not a turn: {redact(str(error))}").as_dict()}
    target.write(message.marked(MARK, answer))
    target.flush()
    return 0


def answer_in(output: str) -> bytes | None:
    """Return the answer in the output of `jada-agent turn`, for `check`, or None."""
    return message.unmarked(MARK, output)


def check(answer: bytes, host: str) -> dict[str, Any]:
    """Return the answer to a turn from `host` after checking it. Raise WireError `bad_answer`."""
    return message.decoded(answer, host, TurnAnswer, MAX_ANSWER_BYTES)
