"""One task on Fargate: its order and bundle from the bucket, its result and files to the bucket."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from farmhand.cloud import shard_end
from farmhand.cloud.calls import CallFailed, ContainerBucket, ContainerTable
from farmhand.cloud.child import AgentChild, LauncherWatch
from farmhand.cloud.clone import TaskClone
from farmhand.cloud.credential import HeldCredential
from farmhand.cloud.ending import ContainerEnds, StopClock, TextLog, say
from farmhand.cloud.ledger_rows import OF_PLAN, LedgerRows
from farmhand.core.bucket_keys import BatchKeys, PartName
from farmhand.core.errors import FarmhandError, WireError
from farmhand.core.keys import holds_key
from farmhand.core.shard import (
    EXIT_CONFIG,
    EXIT_DONE,
    EXIT_LEFT,
    EXIT_REFUSED,
    POLL_S,
    SingleOrder,
    SingleResult,
    StoredFile,
)
from farmhand.core.task import FINAL_STATES, PATCH, TASK_OUTPUTS
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task

#: Seconds between two looks at what the task has cost: more than that is not lost with a container that is killed.
_LEDGER_S = 2.0
_WORKER_GONE = {
    "code": "agent_error",
    "message": "the worker container, in which the task ran, has ended: it was killed, or ran out of memory",
    "hint": "its memory is for all that the task's programs use together",
}
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: The refusals of a key that end in an exit code of their own.
_OF_KEY = frozenset({"authentication_error", "account_disabled", "billing_error", "spend_limit"})


class SingleRun:
    """The run of `order`."""

    def __init__(
        self,
        order: SingleOrder,
        keys: BatchKeys,
        bucket: ContainerBucket,
        table: ContainerTable,
        agent: AgentChild,
        credential: HeldCredential,
        clock: StopClock,
    ) -> None:
        self._order, self._keys, self._bucket, self._table = order, keys, bucket, table
        self._agent, self._credential, self._clock = agent, credential, clock
        self._id = str(order.task["id"])
        self._rows: LedgerRows | None = None
        self._attempt = 1
        #: Parts of the ledger that are not in the bucket yet, and how many are.
        self._parts: list[bytes] = []
        self._written = 0
        self._text = TextLog(on=order.live)
        self._result: dict[str, Any] | None = None
        self._error: WireError | None = None
        #: Why the task cannot begin, or go on: no credential.
        self.refused: ContainerEnds | None = None
        self._replaced = self._replacing = False
        #: The repository that is fetched here, if it is; what is fetched, as long as the task runs.
        self.clone: TaskClone | None = None
        #: The launcher, if the task needs it.
        self.launcher = LauncherWatch(None)
        self._kept = tempfile.TemporaryDirectory(prefix="clone-")
        self._task = dict(order.task)

    def run(self, rows: LedgerRows, attempt: int) -> int:
        """Run the task and return the exit code. Raise ContainerEnds."""
        self._rows, self._attempt = rows, attempt
        started, stopped = time.time(), False
        if self.refused is not None:
            pass
        elif holds_key(self._order.task, self._credential.value):
            self._result = shard_end.failed(self._id, shard_end.KEY_IN_TASK)
        elif self._send_bundle():
            thread = threading.Thread(target=self._follow, name="task", daemon=True)
            thread.start()
            stopped = self._watch(thread)
        code = self._refusal()
        if self._error is not None and self._error.code in _OF_KEY:
            code = shard_end.refused(
                self._table, self._order.environment, self._credential, self._error.code, str(self._error)
            )
        result = self._result or self._failed()
        if (result.get("error") or {}).get("code") == "agent_error" and self.launcher.gone():
            result = {**result, "error": _WORKER_GONE}
        if self._credential.mode == "plan":
            result = {**result, **OF_PLAN, "list_usd": result.get("cost_usd")} if result else result
        cut = stopped and self._clock.asked and result.get("state") == "cancelled"
        self._insist(self._put_ledger)
        if result.get("state") not in FINAL_STATES or cut:
            say(f"task {self._id} was cut off")
            code = EXIT_LEFT
        elif not self._insist(lambda: self._put_result(result, started)):
            say(f"unsaved {self._id}")
            code = code or EXIT_LEFT
        self._agent.stop()
        say(f"task {self._id}: {result.get('state') or 'cut off'}: exit {code}")
        return code

    def _refusal(self) -> int:
        """Make the reason why there is no credential the task's error, unless it ended before. Return the exit code."""
        why = self.refused
        if why is None or (self._result or {}).get("state") not in (None, "cancelled"):
            return EXIT_DONE
        name = "authentication_error" if why.code == EXIT_REFUSED else "not_configured"
        self._error, self._result = WireError(name, str(why)), None
        return why.code

    def _send_bundle(self) -> bool:
        """Give the daemon a repository task's bundle. Return False if there is none: then that is the result."""
        if not self._task.get("repo"):
            return True
        if self.clone is not None:
            return self._fetch(self.clone)
        with tempfile.TemporaryDirectory(prefix="bundle-") as made:
            path = Path(made, "source.bundle")
            if not self._insist(lambda: self._bucket.fetch(self._keys.bundle, path)):
                raise ContainerEnds(EXIT_LEFT, "the bundle cannot be read")
            if _digest(path) != self._order.bundle_sha256:
                raise ContainerEnds(EXIT_CONFIG, "the bundle is not the one of the order")
            with Client(self._agent.transport) as client:
                client.put_bundle(self._id, path)
        return True

    def _fetch(self, clone: TaskClone) -> bool:
        directory = Path(self._kept.name)
        try:
            self._task["repo"] = {**self._task["repo"], **clone.fetch(directory)}
            with Client(self._agent.transport) as client:
                client.put_bundle(self._id, directory / "source.bundle")
        except FarmhandError as error:
            say(str(error))
            self._result = shard_end.failed(self._id, error.as_dict())
            return False
        return True

    def _follow(self) -> None:
        try:
            with Client(self._agent.transport) as client:
                self._result = run_task(
                    client, self._task, self._credential.sent, self._on_event, on_refused=self._replace
                )
        except WireError as error:
            self._error = error

    def _replace(self) -> bool:
        """Return whether another token has taken the place of the one that the API has refused; once."""
        if self._replaced:
            return False
        self._replaced = self._replacing = True
        try:
            return self._credential.replace(self._clock)
        except ContainerEnds as end:
            say(str(end))
            return False
        finally:
            self._replacing = False

    def _on_event(self, event: dict[str, Any]) -> None:
        if event.get("type") == "text":
            self._text.add(str(event.get("text") or ""))

    def _watch(self, thread: threading.Thread) -> bool:
        """Wait for the task. Return whether it had to be stopped."""
        looked = written = time.monotonic()
        cut_at, stopped = float("inf"), False
        while thread.is_alive():
            thread.join(0.2)
            self._text.flush()
            now = time.monotonic()
            if self._clock.at is not None and not stopped:
                say("SIGTERM: the task has a minute to end")
                stopped, cut_at = True, self._clock.at + self._clock.last_tasks_s
            failure = None if self._replacing else self._credential.failure
            if self.refused is None and failure is not None:
                say(str(failure))
                self.refused, stopped, cut_at = failure, True, now
            if now - written >= _LEDGER_S:
                written = now if self._note_cost() else now + POLL_S
            if now - looked >= POLL_S:
                looked = now
                stopped, cut_at = self._look(stopped, cut_at)
            if now > cut_at:
                cut_at = now + POLL_S
                with suppress(WireError), Client(self._agent.transport) as client:
                    client.cancel(self._id)
            if now > self._clock.until - self._clock.kill_s / 6 or not self._agent.lives:
                break
        self._text.flush(all_of_it=True)
        return stopped

    def _look(self, stopped: bool, cut_at: float) -> tuple[bool, float]:
        """Look whether the task is to be cancelled."""
        try:
            item = self._table.item()
        except CallFailed as error:
            say(str(error))
            return stopped, cut_at
        if item is not None and item.state != "running" and not stopped:
            say(f"the task is cancelled: {item.detail or item.state}")
            return True, time.monotonic()
        return stopped, cut_at

    def _note_cost(self) -> bool:
        """Write what the task has cost so far into the bucket: it may be killed. Return whether that was possible."""
        try:
            self._put_ledger()
        except CallFailed as error:
            say(str(error))
            return False
        return True

    def _failed(self) -> dict[str, Any]:
        """Return the result of a task that the daemon did not run; {} if it is not known whether it did."""
        error = self._error
        told = error is not None and (error.status or error.code in _OF_KEY)
        if error is None or not (told or (self.refused and self.refused.code != EXIT_LEFT)):
            return {}
        return shard_end.failed(self._id, error.as_dict())

    def _put_ledger(self) -> None:
        with suppress(WireError):
            if self._rows is not None and (body := self._rows.part()):
                self._parts.append(body)
        while self._parts:
            name = PartName(0, 0, self._attempt, self._written + 1)
            self._bucket.put_new(self._keys.ledgers() + name.path, self._parts[0])
            self._parts.pop(0)
            self._written += 1

    def _put_result(self, result: dict[str, Any], started: float) -> None:
        files: dict[str, StoredFile] = {}
        with tempfile.TemporaryDirectory(prefix="outputs-") as made:
            for name, most in TASK_OUTPUTS.items() if self._order.task.get("repo") else ():
                path = Path(made, name)
                if self._has(name, path, most):
                    key = self._keys.output(name)
                    self._bucket.put_file(key, path)
                    files[name] = StoredFile(key=key, bytes=path.stat().st_size, sha256=_digest(path))
                    if name == PATCH and self.clone is not None:
                        result["repo"] = self.clone.judged(path.read_bytes())
        done = SingleResult(
            result=result, files=files, place=self._order.place, started_at=started, stopped_at=time.time()
        )
        if not self._bucket.put_new(self._keys.output("result.json"), msgspec.json.encode(done)):
            say("there is a result of another attempt already; this one does not count")

    def _has(self, name: str, path: Path, most: int) -> bool:
        try:
            with path.open("wb") as file, Client(self._agent.transport) as client:
                return client.get_file(self._id, name, file, most)
        except WireError as error:
            say(f"{name}: {error}")
            return False

    def _insist(self, call: Callable[[], object]) -> bool:
        """Call until it works, or until time is up. Return whether it worked."""
        until = min(time.monotonic() + shard_end.CLOSE_S, self._clock.until - 3)
        for number in range(1000):
            try:
                call()
                return True
            except CallFailed as error:
                say(str(error))
                if not error.passing or time.monotonic() > min(until, self._clock.until - 3):
                    return False
                time.sleep(_PAUSES_S[min(number, len(_PAUSES_S) - 1)])
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
