"""What the verbs of the history share: the hosts' tasks, brought up to date here, and one of them by its id."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import click

from farmhand.cli.say import note, one_line
from farmhand.cli.waiting import WaitLine
from farmhand.core.decoding import as_text
from farmhand.core.errors import FarmhandError, FarmUnreachable, UsageError, WireError
from farmhand.core.ids import is_again, line_key
from farmhand.core.readable import local_time
from farmhand.core.settings import PLACE_NAMES, Settings, farm_name
from farmhand.history.copying import HistorySource, asked, refresh
from farmhand.history.store import CopyUnusable, HistoryStore, PastTaskCopy, TaskFilter, default_path, was_held
from farmhand.offline.spool import open_spool
from farmhand.places import docker
from farmhand.places.hosts import every_host
from farmhand.places.reach import FAILOVER_S
from farmhand.wire.client import Client
from farmhand.wire.follow import FINAL_STATES

#: The argument of the verbs about one task, and what is said of ids.
one_id = click.argument("task_id", metavar="[ID]", required=False)
many_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_LISTED = "farmhand list shows them"


class Past(NamedTuple):
    """The copy of the history, the hosts it is of, and why some of them could not be asked just now."""

    conf: Settings
    store: HistoryStore
    sources: dict[str, HistorySource]
    copies: dict[str, float]
    errors: dict[str, FarmhandError]

    @property
    def farms(self) -> dict[str, str]:
        """Return host → its farm, as the copy has it."""
        return {name: source.farm for name, source in self.sources.items()}

    def notes(self) -> list[str]:
        """Return a line for each host that could not be asked: why, and from when its copy is."""
        return [f"{error}; {self._of_copy(name)}" for name, error in self.errors.items()]

    def _of_copy(self, name: str) -> str:
        at = self.copies.get(name)
        return f"what is shown of {name} is from {local_time(at)}" if at else f"there is no copy of {name}'s tasks here"

    def hosts(self) -> dict[str, Any]:
        """Return for JSON, by host: from when the copy is, and why the host could not be asked."""
        return {
            name: {
                "copied_at": self.copies.get(name),
                "error": self.errors[name].as_dict() if name in self.errors else None,
            }
            for name in self.sources
        }

    def newest(self) -> PastTaskCopy:
        """Return the newest task. Raises UsageError."""
        found = self.store.list(TaskFilter(), self.farms, 1)
        if not found:
            raise self._missing("there is no task yet")
        return found[0]

    def find(self, start: str | None, *, as_asked: bool = False) -> PastTaskCopy:
        """Return the task whose id is `start`, or alone begins with it; None: the newest.

        Of a line of a batch it is the attempt that answered, else the last; with `as_asked` the first.
        Raises UsageError, and FarmUnreachable if a host that could not be asked may have it.
        """
        if start is None:
            return self.newest()
        start = as_text(start, "the id")
        if not start:  # an empty variable of a script must not cancel the only task
            raise UsageError("the id is empty", hint=_LISTED)
        found = self.store.find(start, self.farms)
        if not found:
            self._ask_for(start)
            found = self.store.find(start, self.farms)
        if found and not is_again(start) and len({(one.result.get("batch"), line_key(one.id)) for one in found}) == 1:
            attempts = self.store.attempts(found[0], self.farms)
            return min(attempts, key=lambda one: one.result["created_at"]) if as_asked else attempts[0]
        ids = list(dict.fromkeys(task.id for task in found))
        if len(ids) > 1:
            some = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
            raise UsageError(f"{start!r:.80} begins the ids of several tasks: {one_line(some)}", code="ambiguous_id")
        if not found:
            if open_spool(self.conf).look(start) is not None:
                hint = f"farmhand flush {start} sends it and gives its answer, farmhand flush --drop {start} forgets it"
                raise UsageError(f"task {start} waits here: no farm host had answered", hint=hint, code="no_such_task")
            raise self._missing(f"no task {start!r:.80}")
        return found[0]

    def bent(self, task: PastTaskCopy) -> dict[str, Any] | None:
        """Return what was asked of a task that went on at a lower price, what was used, and why; None: it did not."""
        used = _form(task)
        for one in reversed(self.store.attempts(task, self.farms)):
            if was_held(one.result) and (asked := _form(one)) != used:
                return {"asked": asked, "used": used, "why": str(one.result["error"].get("message"))}
        return None

    def _missing(self, what: str) -> FarmhandError:
        if self.errors:
            why = "; ".join(map(str, self.errors.values()))
            return FarmUnreachable(f"{what} is in the copies here, and not every host could be asked: {why}")
        return UsageError(what, hint=_LISTED, code="no_such_task")

    def _ask_for(self, start: str) -> None:
        """Ask every host for tasks with this beginning: they may be older than what is copied."""
        for name, source in self.sources.items():
            if name not in self.errors:
                try:
                    with self.client(name) as client:
                        self.store.add(source.farm, name, asked(client, name, id=start), last=False)
                except WireError as error:
                    if error.code != "invalid_request" and error.status != 400:
                        self.errors[name] = error.at(name)

    def whole(self, task: PastTaskCopy) -> PastTaskCopy:
        """Return the task as its host has it now, whole, if the copy can be older or is cut; else as it is here."""
        if (task.whole and task.result["state"] in FINAL_STATES) or task.host in self.errors:
            return task
        try:
            with self.client(task.host) as client:
                found = asked(client, task.host, id=task.id)["tasks"]
        except WireError as error:
            self.errors[task.host] = error.at(task.host)
            return task
        for one in found:
            if one["id"] == task.id:
                result = {name: value for name, value in one.items() if name != "spec"}
                return task._replace(result=result, spec=one.get("spec"), copied_at=time.time())
        return task

    def client(self, host: str) -> Client:
        """Return a client of the host. Raises why it could not be asked."""
        if host in self.errors:
            raise self.errors[host]
        return Client(self.sources[host].host.transport(self.conf.connect_timeout_s))


def _form(task: PastTaskCopy) -> dict[str, Any]:
    return {name: task.result.get(name) for name in ("model", "engine")}


@contextmanager
def history(conf: Settings) -> Iterator[Past]:
    """Open the history, with what is new at the hosts. A host that is down is no error while there is a copy.

    A file of the copy that cannot be used is told, and the hosts are asked for all that they have: a task has to be
    found and cancelled when the disk is full, too.
    Raises NotConfigured, and FarmUnreachable if there is neither a copy nor an answer of any host.
    """
    hosts = every_host(conf)
    here = farm_name(conf._replace(place=PLACE_NAMES[0]))
    farms = {name: f"docker:{conf.docker_name}" if name == docker.NAME else here for name in hosts}
    sources = {name: HistorySource(farms[name], host) for name, host in hosts.items()}
    with ExitStack() as stack:
        try:
            store = stack.enter_context(closing(HistoryStore(default_path())))
            errors = _up_to_date(store, conf, sources)
        except CopyUnusable as error:
            note(str(error))
            store = stack.enter_context(closing(HistoryStore(None)))
            errors = _up_to_date(store, conf, sources)
        past = Past(conf, store, sources, copied(store, sources), errors)
        if errors and not past.copies:
            raise next(iter(errors.values()))
        yield past


def _up_to_date(store: HistoryStore, conf: Settings, sources: dict[str, HistorySource]) -> dict[str, FarmhandError]:
    """Copy what is new at the hosts. Return why some could not be asked."""
    store.expire()
    before = copied(store, sources)
    limits = {
        name: min(conf.connect_timeout_s, FAILOVER_S) if name in before else conf.connect_timeout_s for name in sources
    }
    with WaitLine() as wait:
        wait.on(f"asking {', '.join(sources)}")
        return refresh(store, sources, limits)


def copied(store: HistoryStore, sources: dict[str, HistorySource]) -> dict[str, float]:
    """Return host → when its tasks were last copied."""
    times = {farm: store.copies(farm) for farm in {source.farm for source in sources.values()}}
    return {name: times[source.farm][name] for name, source in sources.items() if name in times[source.farm]}


def gone(task: PastTaskCopy) -> str:
    """Return why the content of a task is not here any more."""
    days = f"{task.retention_days:g} day{'' if task.retention_days == 1 else 's'}"
    return f"prompt and answer of task {task.id} are gone: {task.host} keeps them for {days} at the most"
