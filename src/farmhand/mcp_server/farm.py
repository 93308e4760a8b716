"""What the tools do. Every method returns the text for the session, and raises FarmhandError for what is wrong."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from farmhand.batch.reasons import reason
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, TaskFailed, UsageError, from_result
from farmhand.core.keys import harmless
from farmhand.core.money import pico, plain, usd
from farmhand.core.readable import counted, duration, money
from farmhand.mcp_server import answers, tools, words
from farmhand.mcp_server.book import Book, BookHeld, JobEntry, SessionMoneySpent, Tell, in_turn
from farmhand.mcp_server.called_off import StopUnless
from farmhand.mcp_server.intake import Assemble, Session, TaskIntake, line_of, most_of
from farmhand.mcp_server.jobs import Job, JournalHeld, cost_of
from farmhand.mcp_server.verbs import VERB_S, failure_of, printed

#: Seconds between two looks at a child, and how long a batch that cannot begin has to say so.
_LOOK_S = 0.1
_BEGINS_S = 2.0
#: How many ids are cancelled at once.
_IDS = 500
_EXIT_USAGE, _EXIT_CONFIG = UsageError.exit_code, NotConfigured.exit_code


class Farm:
    """The tools of one session."""

    def __init__(self, config: str | None, directory: Path, environment: dict[str, str], assemble: Assemble) -> None:
        self._config, self._directory, self._environment = config, directory, environment
        self._intake = TaskIntake(assemble)
        self.book = Book(directory, secrets.token_hex(6))

    async def tidy(self) -> None:
        """Delete old jobs. What cannot be done now another server does."""
        with suppress(FarmhandError):
            for old in await in_turn(_nobody, self.book.forget):
                await anyio.to_thread.run_sync(Job(self._directory, old).remove)

    @property
    def conf(self) -> settings.Settings:
        """Return the settings as they are now. Raise NotConfigured."""
        return settings.load(self._config)

    async def farm_task(self, session: Session, own: tools.TaskArguments, fields: dict[str, Any]) -> str:
        """Run one task."""
        conf = self.conf
        task, notes = await self._intake.task(session, conf, own, fields)
        most = most_of(task, conf)
        amount = await self._reserve(
            session, task.id, "task", task.max_usd, most, most * 2 // 5, conf, own.label or "", 1
        )
        job = Job(self._directory, task.id)
        task.max_usd = usd(amount)
        body = msgspec.to_builtins(task) | {"max_usd": float(usd(amount))}
        try:
            job.make("task.json", json.dumps(body, ensure_ascii=False).encode())
            self._start(job, "task")
        except FarmhandError:
            await in_turn(session.progress, self.book.settle, task.id, 0)
            raise
        async with StopUnless(job.id, self._called_off) as stop:
            await self._wait(session, job, 1, _wait(own.wait_s, conf.mcp_wait_s))
            stop.gone_on()
        return "\n".join([*notes, await self._told(session, task.id)])

    async def farm_batch(self, session: Session, own: tools.BatchArguments, fields: dict[str, Any]) -> str:
        """Begin a batch."""
        conf = self.conf
        limit = tools.task_of({"id": "x", "prompt": "x", "max_usd": fields.pop("max_usd", None)}, "max_usd").max_usd
        tasks, notes = await self._intake.tasks(session, conf, own, fields)
        mosts = [most_of(task, conf) for task in tasks]
        # As for a task: with less none of them could begin, unless the operator lets a spent budget bend.
        least = min(mosts) * 2 // 5 if conf.when_spent == "stop" else 1
        job = Job(self._directory, f"b{secrets.token_hex(6)}")
        wanted = len(tasks)
        least = least if limit is None else min(least, pico(limit))
        amount = await self._reserve(session, job.id, "batch", limit, sum(mosts), least, conf, own.label or "", wanted)
        lines = b"".join(line_of(task) for task in tasks)
        try:
            job.make("in.jsonl", lines)
            self._start_batch(job, amount)
        except FarmhandError:
            await in_turn(session.progress, self.book.settle, job.id, 0)
            raise
        wait_s = _wait(own.wait_s, 0.0)
        async with StopUnless(job.id, self._called_off) as stop:
            await self._wait(session, job, wanted, max(wait_s, _BEGINS_S))
            stop.gone_on()
        return "\n".join([*notes, await self._told(session, job.id)])

    async def farm_result(self, session: Session, own: tools.ResultArguments, _: dict[str, Any]) -> str:
        """Return what became of a job; one that was cut off goes on."""
        entry = await self._entry(session.progress, own.id)
        job = Job(self._directory, entry.id)
        if entry.state == "open" and not job.is_running() and self._unfinished(entry, job):
            if entry.kind == "batch":
                self._start_batch(job, entry.reserved)
            else:
                self._start(job, "task")
        if job.is_running():
            await self._wait(session, job, entry.tasks, _wait(own.wait_s, self.conf.mcp_wait_s))
        return await self._told(session, entry.id)

    async def farm_cancel(self, session: Session, own: tools.CancelArguments, _: dict[str, Any]) -> str:
        """End a job."""
        entry = await self._entry(session.progress, own.id)
        job = Job(self._directory, entry.id)
        if entry.state not in ("open", "stopping"):
            return f"{entry.kind} {entry.id} had ended before"
        if job.is_running():
            job.stop()
            await self._wait(session, job, entry.tasks, VERB_S)
        if job.is_running():
            raise FarmhandError(f"{entry.kind} {entry.id} is still stopping", hint="call farm_cancel again")
        if entry.state == "open" and not self._unfinished(entry, job):
            return await self._told(session, entry.id)
        cost = await self._cancelled(session.progress, entry, job)
        spent = "what was held for it stays spent" if cost is None else f"it has cost US$ {plain(cost)}"
        return f"{entry.kind} {entry.id} is cancelled; {spent}"

    async def _called_off(self, job_id: str) -> None:
        """End a job whose call the client has called off."""
        job = Job(self._directory, job_id)
        job.stop()
        entry = await self._entry(_nobody, job_id)
        # So it stands in the book, with all that was held for it, if this process ends before the rest is known.
        await in_turn(_nobody, self.book.settle, job_id, None, "stopping")
        while job.is_running():  # noqa: ASYNC110  (it may be another server's child)
            await anyio.sleep(_LOOK_S)
        await self._cancelled(_nobody, entry, job)

    async def _cancelled(self, tell: Tell, entry: JobEntry, job: Job) -> int | None:
        """Cancel what a job that was stopped may have left anywhere, and return what it has cost, None if not known."""
        if not self._unfinished(entry, job):
            cost = job.cost_if_known()
            await in_turn(tell, self.book.settle, entry.id, cost, "cancelled")
            return cost
        leases, kept_here = job.leases(), False
        if entry.kind == "task":
            leases = [entry.id]
            with suppress(FarmhandError):  # it is not in the spool
                await self._verb(tell, "flush", "--drop", entry.id)
                kept_here = True
        unreached: list[str] = []
        for first in range(0, len(leases), _IDS):
            try:
                unreached += (await self._verb(tell, "cancel", *leases[first : first + _IDS])).get("unreached", [])
            except FarmhandError as error:  # else no host has any of them
                unreached += [str(error)] if error.exit_code == FarmUnreachable.exit_code else []
        if unreached and not kept_here:
            hint = "what it has may go on there: call farm_cancel again when the host is up"
            raise FarmUnreachable(f"{entry.kind} {entry.id} is not cancelled: {unreached[0]}", hint=hint)
        # What it has cost is not known, unless its host says so: what was held for it stays spent.
        if entry.kind == "task":
            cost = await self._cost_at_host(tell, entry)
        else:
            cost = job.cost_if_known() if job.has_begun() else 0
        await in_turn(tell, self.book.settle, entry.id, cost, "cancelled")
        return cost

    async def farm_status(self, session: Session, own: tools.StatusArguments, _: dict[str, Any]) -> str:
        """Return what the farm does, and the last jobs."""
        await self._settle_all(session.progress)
        lines = [room.said() for room in await in_turn(session.progress, self.book.rooms, self.conf)]
        try:
            found = await self._verb(session.progress, "status")
            for name, host in sorted((found.get("hosts") or {}).items()):
                lines.append(f"host {name}: {_host(host)}")
        except FarmhandError as error:
            lines.append(f"the hosts cannot be asked: {error.message} ({words.hint(error.hint)})")
        lines += map(self._in_one_line, await in_turn(session.progress, self.book.last, 20))
        return "\n".join(lines)

    async def farm_cost(self, session: Session, own: tools.CostArguments, _: dict[str, Any]) -> str:
        """Return what was spent."""
        lines = [room.said() for room in await in_turn(session.progress, self.book.rooms, self.conf)]
        found = await self._verb(session.progress, "cost", "--since", own.since or "1d")
        whole, models = found.get("whole") or {}, found.get("groups") or []
        lines.append(f"all of the farm since {(found.get('spent') or {}).get('since')}: {_figures(whole)}")
        lines += [f"  {one.get('key')}: {_figures(one)}" for one in models[:20]]
        lines += [f"  {host['host']} could not be asked" for host in found.get("hosts") or [] if host.get("error")]
        return str(harmless("\n".join(lines)))

    @property
    def _cap(self) -> int:
        return int(self.conf.mcp_answer_chars)

    async def _reserve(
        self,
        session: Session,
        job_id: str,
        kind: str,
        limit: Decimal | None,
        most: int,
        least: int,
        conf: settings.Settings,
        label: str,
        tasks: int,
    ) -> int:
        wanted = most if limit is None else min(most, pico(limit))
        await self._settle_all(session.progress)
        row = (job_id, kind, wanted, least, conf, label, tasks)
        try:
            return await in_turn(session.progress, self.book.reserve, *row)
        except SessionMoneySpent as spent:
            more = await session.ask_for_more(f"{spent.message}. It is for: {label or kind}. Allow how many US$ more?")
            if more is None:
                raise
            for name in ("day", "session"):
                await in_turn(session.progress, self.book.allow, name, pico(more))
            return await in_turn(session.progress, self.book.reserve, *row)

    def _start(self, job: Job, *arguments: str) -> None:
        config = [self._config] if self._config and arguments == ("task",) else []
        job.start([*arguments, *config], self._environment)

    def _start_batch(self, job: Job, amount: int) -> None:
        config = ["--config", self._config] if self._config else []
        files = [str(job.path / "in.jsonl"), "--out", str(job.path / "out.jsonl")]
        self._start(job, "batch", *files, "--batch", job.id, "--max-usd", f"{usd(amount):f}", "--json", *config)

    async def _wait(self, session: Session, job: Job, total: int, wait_s: float) -> None:
        """Wait until the job's child has ended, at most so long, and tell how far it is."""
        until = time.monotonic() + wait_s
        while job.is_running() and time.monotonic() < until:
            await session.progress(job.text("progress") or f"{job.done()} of {counted(total, 'task')} ended")
            await anyio.sleep(_LOOK_S)

    async def _entry(self, tell: Tell, given: str) -> JobEntry:
        entry = await in_turn(tell, self.book.find, tools.job_id(given))
        if entry is None:
            raise UsageError(f"no job {given} is known", hint="farm_status lists them", code="no_such_task")
        return entry

    def _unfinished(self, entry: JobEntry, job: Job) -> bool:
        """Return whether a job that does not run has work left that can go on."""
        end, status = job.end(), job.status()
        if entry.kind == "batch":
            left = end.get("left")
            return left != 0 and not (status == _EXIT_USAGE or (status == _EXIT_CONFIG and left is None))
        if end.get("state") in ("succeeded", "failed", "cancelled"):
            return False
        return status not in (_EXIT_USAGE, _EXIT_CONFIG)

    async def _told(self, session: Session, job_id: str) -> str:
        """Return what is to be said of a job, after its money is settled. Raise why it has failed."""
        try:
            entry, job = await self._entry(session.progress, job_id), Job(self._directory, job_id)
        except BookHeld as held:
            raise BookHeld(held.message, hint=f"{job_id} goes on: farm_result {job_id} has its answer later") from None
        if job.is_running():
            if entry.kind == "batch":
                waits = f"{what}; " if (what := job.text("progress")) else ""
                return self._batch_told(entry, job, f"runs ({waits}farm_result {entry.id} has more later)")
            what = job.text("progress") or "it starts"
            return f"task {entry.id} still runs ({what}); farm_result {entry.id} has its answer later"
        if entry.state in ("cancelled", "stopping"):
            return f"{entry.kind} {entry.id} was cancelled"
        with suppress(BookHeld):  # the next call does it
            self._settle(entry, job)
        if entry.kind == "batch":
            return self._batch_told(entry, job)
        result = job.end()
        failure = from_result(result) if "state" in result and result.get("state") != "spooled" else _error(job)
        if failure is not None:
            cost = f" [task {entry.id}; {answers.said_cost(result.get('cost_usd'))}]" if "cost_usd" in result else ""
            said, hint = words.message(failure.message, job_id), words.hint(failure.hint, job_id)
            raise type(failure)(f"{said}{cost}", hint=hint, code=failure.code)
        return answers.of_task(job, result, self._cap)

    def _batch_told(self, entry: JobEntry, job: Job, head: str = "ended") -> str:
        failure = _error(job) if head == "ended" and job.end().get("left") != 0 else None
        results = job.results()
        if failure is not None and not results:
            raise failure
        if failure is not None:
            head = f"stopped ({failure}); farm_result {entry.id} lets it go on"
        return answers.of_batch(job, entry.tasks, results, head, self._cap)

    async def _settle_all(self, tell: Tell) -> None:
        """Settle what has ended since, of any session, so that it holds no money."""
        for entry in await in_turn(tell, self.book.unsettled):
            job = Job(self._directory, entry.id)
            if not job.is_running():
                await in_turn(tell, self._settle, entry, job)

    def _settle(self, entry: JobEntry, job: Job) -> None:
        """Put the real cost of a job that has ended in the place of what was held for it, if it is known."""
        if entry.state != "open" or self._unfinished(entry, job):
            return
        try:
            cost = job.cost_if_known()
        except JournalHeld:
            return
        if "cost_usd" not in job.end() and job.status() in (_EXIT_USAGE, _EXIT_CONFIG):
            cost = 0  # nothing was sent
        self.book.settle(entry.id, cost)

    async def _cost_at_host(self, tell: Tell, entry: JobEntry) -> int | None:
        try:
            found = await self._verb(tell, "show", entry.id)
        except FarmhandError as error:
            return 0 if error.code == "no_such_task" else None
        task = found.get("task") or {}
        return None if task.get("uncertain") else cost_of(task.get("cost_usd"))

    async def _verb(self, tell: Tell, *arguments: str) -> dict[str, Any]:
        """Return what a verb of farmhand prints with --json. Raise its error."""
        return await printed(
            [*arguments, *(["--config", self._config] if self._config else [])], self._environment, tell
        )

    def _in_one_line(self, entry: JobEntry) -> str:
        job = Job(self._directory, entry.id)
        state = entry.state
        if state == "open":
            runs = f"runs ({what})" if (what := job.text("progress")) else "runs"
            state = runs if job.is_running() else "unfinished" if self._unfinished(entry, job) else "ended"
        cost = f"US$ {plain(entry.cost)}" if entry.cost is not None else f"{money(entry.reserved)} held"
        label = f" {entry.label!r}" if entry.label else ""
        what = entry.kind if entry.kind == "task" else f"batch of {entry.tasks}"
        return f"{what} {entry.id}{label}: {state}, {cost}, {duration(time.time() - entry.created)} ago"


async def _nobody(_: str) -> None:
    """Tell nobody: the call is over, or there is none."""


def _wait(given: float | msgspec.UnsetType, usual: float) -> float:
    return usual if isinstance(given, msgspec.UnsetType) else given


def _error(job: Job) -> FarmhandError:
    """Return why a job has ended without a result."""
    end = job.end()
    if isinstance(error := end.get("error"), dict):
        return failure_of(error, job.status() or 1, job.id)
    last = job.text("log").strip().splitlines()[-1:] if "left" not in end else []
    said = f": {words.message(str(harmless(last[0])), job.id)}" if last else ""
    return TaskFailed(f"{job.id} was cut off{said}", hint=f"farm_result {job.id} lets it go on", code="cut_off")


def _figures(row: dict[str, Any]) -> str:
    unknown = sum(row.get(name) or 0 for name in ("unpriced", "uncertain"))
    doubt = f", the cost of {counted(unknown, 'request')} is not known" if unknown else ""
    return f"US$ {row.get('spent_usd')}, {counted(row.get('tasks') or 0, 'task')}, {row.get('failed')} failed{doubt}"


def _host(host: Any) -> str:
    if not isinstance(host, dict):
        return "not known"
    if isinstance(error := host.get("error"), dict):
        return str(harmless(error.get("message")))
    keep = ("state", "running", "queued", "awaiting_key")
    said = ", ".join(f"{name} {harmless(host[name])}" for name in keep if host.get(name) is not None)
    waits = reason(host.get("waiting") or [])
    return f"{said}; tasks wait: {harmless(waits)}" if waits else said


#: A tool's method.
Work = Callable[[Session, Any, dict[str, Any]], Awaitable[str]]
