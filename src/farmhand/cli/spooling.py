"""What a call has to do with the spool: its own task may be in there, and what waits goes along when a host answers."""

from __future__ import annotations

import os

from farmhand.cli.say import note
from farmhand.core.errors import FarmUnreachable
from farmhand.core.settings import old_spool_name, spool_name

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from typing import Any

    from farmhand.core.errors import FarmhandError, WireError
    from farmhand.core.settings import Settings
    from farmhand.offline.spool import Spool, SpooledTask
    from farmhand.wire.client import Client

#: How long a call may spend on what waits. It is spent while the model works on the call's own task. Seconds.
DELIVER_S = 0.5


class Spooling:
    """The spool as one call sees it. Raises UsageError at once if another task in it has the call's id.

    In most calls nothing waits; then the spool's own modules, which take 40 ms to import, stay out of it.
    """

    def __init__(self, task: dict[str, Any], conf: Settings) -> None:
        self.task = task
        self.conf = conf
        self.waiting: SpooledTask | None = None
        self._idle = not _has_waiting(conf)
        if not self._idle:
            self.waiting = self.spool.find(task["id"])
            if self.waiting is not None:
                self.spool.same(self.waiting, task)

    @property
    def spool(self) -> Spool:
        """The spool itself."""
        from farmhand.offline.spool import open_spool

        return open_spool(self.conf)

    def result(self) -> dict[str, Any] | None:
        """The result of this very task, if it was spooled and has ended since. Raises UsageError for another's id."""
        if not _may_be_kept(self.task["id"]):
            return None
        from farmhand.offline.spool import id_conflict

        kept = self.spool.kept(self.task["id"])
        if kept is not None and kept.task != self.task:
            raise id_conflict(self.task["id"])
        return None if kept is None else kept.result

    def wanted(self) -> str:
        """The one host that the task may go to; "" for any."""
        return self.conf.host if self.waiting is None else self.waiting.sent or self.conf.host

    def sending(self, host: str) -> None:
        """The task is about to be sent to `host`.

        Raises FarmUnreachable if another call has sent it elsewhere, or it was sent as often as it may be.
        """
        if self.waiting is None:
            return
        if self.waiting.worn_out:
            what = f"task {self.waiting.id} was sent {self.waiting.deliveries} times, and its host was gone each time"
            raise FarmUnreachable(what, hint=f"farmhand flush {self.waiting.id} asks that host what became of it")
        at = self.spool.claim(self.task["id"], host)
        if at not in ("", host):
            raise FarmUnreachable(f"task {self.task['id']} has just been sent to {at}", hint="try again")

    def sent(self, client: Client, host: str, key: str) -> None:
        """The task is at `host`; so send along what waits, for a moment, and say so."""
        if self._idle:
            return
        from farmhand.offline import deliver

        report = deliver.visit(client, host, self.spool, key, within_s=DELIVER_S)
        mine = {self.task["id"]}
        news = [
            f"{len(ids)} queued {'task' if len(ids) == 1 else 'tasks'} {what}"
            for ids, what in (
                (set(report.delivered) - mine, f"sent to {host}"),
                (set(report.finished) - mine, "ended"),
            )
            if ids
        ]
        if news:
            note(f"{', '.join(news)} (farmhand flush shows them)")

    def ended(self, result: dict[str, Any], host: str) -> None:
        """The task has its result, which the spool keeps if the task was in it."""
        if self.waiting is not None:
            self.spool.finish(self.task["id"], result, host)

    def failed(self, error: WireError, host: str) -> FarmhandError:
        """What to raise once the task may be at `host` and `error` came: a lost task is noted for a later call."""
        from farmhand.cli import fallback

        failure = error.at()
        if not isinstance(failure, FarmUnreachable) or error.status:
            return failure
        if fallback.policy_of(self.conf, terminal=fallback.on_terminal()) != "queue":
            return failure
        self.spool.add(self.task, wanted=self.conf.host, sent=host)
        return fallback.Spooled(self.task["id"], failure, at=host)


def _has_waiting(conf: Settings) -> bool:
    """Whether there may be a task in the spool."""
    try:
        return os.path.isdir(old_spool_name(conf)) or bool(os.listdir(os.path.join(spool_name(), "waiting")))
    except OSError:
        return False


def _may_be_kept(task_id: str) -> bool:
    """Whether there may be a result of this id in the spool."""
    return os.path.exists(os.path.join(spool_name(), "results", f"{task_id}.json"))
