"""Holds a story's parts against each other; what does not fit is one line each. No line: all is well.

The API's log is the truth about what was asked and answered. `ledger_rules` is about what the ledger must be in itself.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from farmhand.agent.store.commands import CRASHED
from farmhand.core.task import FINAL_STATES
from tests.chaos import ledger_rules
from tests.chaos.plan import ATTEMPTS
from tests.chaos.story import Row, Story
from tests.support.messages_api.answer import echo

#: Faults that spoil an answer which the API has begun, and charges for.
SPOILERS = frozenset({"cut", "stream_error", "garbage", "stalled"})
_COUNTED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Case:
    """One task: what the ledger has of it, and what the API was asked and answered for it."""

    def __init__(self, story: Story, row: Row, requests: list[Row]) -> None:
        seq = row["seq"]
        self.row = row
        self.id: str = row["id"]
        self.attempts = [one for one in story.ledger["attempt"] if one["task_seq"] == seq]
        self.charges = [one for one in story.ledger["charge"] if one["task_seq"] == seq]
        self.requests = requests
        #: What the API charges for: an answer that was begun, whole or not.
        self.charged = [one for one in requests if one.get("status") == 200 and one.get("usage")]
        self.whole = [one for one in self.charged if one.get("fault", "") not in SPOILERS and not one.get("aborted")]
        self.interrupted = sum(one["outcome"] == "interrupted" for one in self.attempts)
        self.crashes = sum(one["crashes"] for one in self.attempts)
        out = {one["provider_batch"] for one in self.attempts}
        batches = [one for one in story.ledger["provider_batch"] if one["no"] in out]
        #: Crashes while its Message Batch was taken in, of which none brought any of the results further.
        self.stuck = max((one["crashes"] for one in batches), default=0)
        #: Whether there was one while the results were taken in together: it counts for each of them.
        self.suspected = any(one["suspected"] for one in batches)
        self.cancelled = self.id in story.cancelled


def judge(story: Story) -> list[str]:
    """All that is wrong in the story."""
    return [*_lost(story), *_shown(story), *ledger_rules.check(story), *_tasks(story), *_strangers(story)]


def _lost(story: Story) -> Iterator[str]:
    rows = {row["id"]: row for row in story.ledger["task"]}
    for task in story.plan.tasks:
        row = rows.pop(task["id"], None)
        if row is None:
            yield f"lost: {task['id']} was taken and is not in the ledger"
        elif row["state"] not in FINAL_STATES:
            yield f"lost: {task['id']} is {row['state']} at the end"
    for task_id in rows:
        yield f"invented: nobody submitted {task_id}"


def _shown(story: Story) -> Iterator[str]:
    """What a client was shown stays true."""
    rows = {row["id"]: row for row in story.ledger["task"]}
    for task_id, seen in story.seen.items():
        row = rows.get(task_id)
        final = next((one for one in seen if one.state in FINAL_STATES), None)
        if row is None:
            yield f"invented: {task_id} was shown and is not in the ledger"
            continue
        after = [] if final is None else [(one.state, one.text) for one in seen[seen.index(final) :]]
        if final is not None and {*after, (row["state"], row["text"])} != {(final.state, final.text)}:
            yield f"invented: {task_id} was shown {final.state}, and then was {seen[-1].state}, is {row['state']}"
        parked = sum(one["outcome"] == "parked" for one in story.ledger["attempt"] if one["task_seq"] == row["seq"])
        fell = sum(max(0, one.attempts - then.attempts) for one, then in pairwise(seen))
        if fell > parked:
            yield f"invented: the attempts of {task_id} fell by {fell}, {parked} were parked"


def _tasks(story: Story) -> Iterator[str]:
    requests: dict[str, list[Row]] = defaultdict(list)
    by_prompt = {task["prompt"]: task["id"] for task in story.plan.tasks}
    by_seq = {str(row["seq"]): row["id"] for row in story.ledger["task"]}
    for entry in story.log:
        if entry["method"] == "BATCH":
            requests[by_seq.get(entry["custom_id"].split("-")[1], "")].append(entry)
        elif entry["path"] == "/v1/messages" and entry["method"] == "POST":
            prompt = json.loads(entry["body"])["messages"][0]["content"]
            requests[by_prompt.get(prompt, "")].append(entry)
    for entry in requests.pop("", []):
        yield f"invented: the API was asked for what nobody submitted: {entry.get('body') or entry['custom_id']}"
    prompts = {task["id"]: task["prompt"] for task in story.plan.tasks}
    for row in story.ledger["task"]:
        if row["id"] in prompts:
            case = Case(story, row, requests[row["id"]])
            yield from _result(case, prompts[row["id"]])
            yield from _runs(story, case)
            yield from _charges(story, case)


def _result(case: Case, prompt: str) -> Iterator[str]:
    """The state and the text are those that the API's answers allow."""
    row, faults = case.row, Counter(one.get("fault", "") for one in case.requests)
    if row["state"] == "succeeded":
        if row["text"] != echo(prompt):
            yield f"invented: the text of {case.id} is not the API's: {row['text']!r}"
        if not case.whole:
            yield f"invented: {case.id} succeeded, and the API never gave a whole answer"
        return
    if row["text"]:
        yield f"invented: {case.id} is {row['state']} with a text"
    if row["state"] == "cancelled" and not case.cancelled:
        yield f"invented: {case.id} is cancelled, and nobody asked for that"
    if row["state"] == "failed":
        spoilt = sum(faults[name] for name in (*SPOILERS, "reset", "batch errored", "batch expired"))
        refused = any(one.get("status") in (400, 403) for one in case.requests)
        if row["error_code"] == CRASHED:
            if max(case.crashes + case.suspected, case.stuck) < ATTEMPTS:
                yield f"lost: {case.id} failed after {case.crashes} crashes, and {case.stuck} of its Message Batch"
        elif not refused and spoilt + case.crashes < ATTEMPTS:
            yield f"lost: {case.id} failed ({row['error_code']}) for {dict(faults)}"


def _runs(story: Story, case: Case) -> Iterator[str]:
    """An attempt has one answer, and only a crash or a fault of the API makes another attempt of it."""
    plain = [
        one for one in case.requests if one.get("fault", "") in ("", "slow") and not 400 <= one.get("status", 0) < 600
    ]
    if len(plain) > len(case.attempts):
        yield f"run twice: {case.id} has {len(case.attempts)} attempts, the API had {len(plain)} requests for it"
    if len(case.whole) > 1 + case.interrupted:
        yield f"run twice: the API gave {len(case.whole)} whole answers for {case.id}, {case.interrupted} crashed"
    if case.interrupted > story.crashes:
        yield f"run twice: {case.id} was interrupted {case.interrupted} times, the agent only {story.crashes}"
    outcomes = [one["outcome"] for one in sorted(case.attempts, key=lambda one: int(one["number"]))]
    for outcome in outcomes[:-1]:
        if outcome in ("succeeded", "cancelled"):
            yield f"run twice: an attempt of {case.id} {outcome}, and another one followed: {outcomes}"
    if case.crashes > ATTEMPTS:
        yield f"poison: the agent crashed {case.crashes} times over {case.id}"
    bad = len([one for one in case.requests if one.get("fault", "") not in ("", "slow")])
    if len(outcomes) > 1 + case.interrupted + bad + outcomes.count("parked"):
        yield f"run twice: {case.id} had attempts {outcomes} for {bad} faults"


def _charges(story: Story, case: Case) -> Iterator[str]:
    """Each charge is an answer of the API, and each answer of the API is a charge, or counted as uncertain."""
    uncovered = {_request(story, one): one for one in case.charged}
    for charge in case.charges:
        entry = uncovered.pop(charge["request_id"], None)
        if entry is None:
            yield f"invented: {case.id} has a charge for {charge['request_id']!r}, which the API does not have for it"
        elif charge["economy"] != (entry["method"] == "BATCH"):
            yield f"invented: the charge {charge['request_id']} of {case.id} has another price than the API's"
        elif any(charge[name] != entry["usage"].get(name, 0) for name in _COUNTED):
            over = {name for name in _COUNTED if charge[name] > entry["usage"].get(name, 0)}
            # What had passed of an answer that broke off is estimated, rather too high.
            if over - ({"output_tokens"} if charge["terms"] == "output=estimated" else set()):
                yield f"invented: the charge {charge['request_id']} of {case.id} is more than {entry['usage']}"
            # An answer that broke off: the rest of it must be uncertain.
            uncovered[charge["request_id"]] = entry
    if len(uncovered) > case.row["uncertain"]:
        yield (
            f"unaccounted: the API charged {len(uncovered)} requests of {case.id} that the ledger has no whole charge"
            f" for: {sorted(uncovered)}; it counts {case.row['uncertain']} as uncertain"
        )
    open_ends = [one for one in case.requests if one.get("fault", "") in (*SPOILERS, "reset") or one.get("aborted")]
    most = len(open_ends) + case.interrupted + sum(one["outcome"] in ("cancelled", CRASHED) for one in case.attempts)
    if case.row["uncertain"] > most:
        yield f"invented: {case.id} counts {case.row['uncertain']} uncertain requests, at most {most} can be"
    if case.row["state"] == "succeeded" and not any(_request(story, one) not in uncovered for one in case.whole):
        yield f"unaccounted: {case.id} succeeded, and the answer is not charged"


def _request(story: Story, entry: Row) -> str:
    """How the ledger calls an answered request."""
    return story.messages.get(entry["custom_id"], "") if entry["method"] == "BATCH" else str(entry["request_id"])


def _strangers(story: Story) -> Iterator[str]:
    """The wire tells the same as the file."""
    for what, told, has in (
        ("charges", [one["charge_id"] for one in story.charges], [one["no"] for one in story.ledger["charge"]]),
        ("tasks", [one["finish_seq"] for one in story.finished], [one["done_no"] for one in story.ledger["task"]]),
    ):
        if sorted(told) != sorted(number for number in has if number is not None):
            yield f"invented: the wire told of {len(told)} {what}, the ledger has {len(has)}"
