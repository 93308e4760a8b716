"""The spool during one call: it may have the call's own task, and its other tasks are sent once a host answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from farmhand.cli.say import note
from farmhand.core.errors import FarmhandError, FarmUnreachable, WireError
from farmhand.core.settings import old_spool_name, spool_name

if TYPE_CHECKING:
    from farmhand.core.settings import Settings
    from farmhand.offline.spool import Spool, SpooledTask
    from farmhand.wire.client import Client

#: How long a call may spend on other waiting tasks, while the model works on its own task. Seconds.
DELIVER_S = 0.5


class Spooling:
    """The spool as seen by one call. Creating it raises UsageError if another task in the spool has the call's id.

    Most calls find nothing waiting. Then the spool's modules, whose import takes 40 ms, are not imported.
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
        """The spool of these settings."""
        from farmhand.offline.spool import open_spool

        return open_spool(self.conf)

    def result(self) -> dict[str, Any] | None:
        """Return this task's result if it was spooled and has ended. Raises UsageError if the id is another task's."""
        if not os.path.exists(os.path.join(spool_name(), "results", f"{self.task['id']}.json")):
            return None
        from farmhand.offline.spool import id_conflict

        kept = self.spool.kept(self.task["id"])
        if kept is not None and kept.task != self.task:
            raise id_conflict(self.task["id"])
        return None if kept is None else kept.result

    def wanted(self) -> str:
        """Return the only host that the task may go to; "" for any."""
        return self.conf.host if self.waiting is None else self.waiting.sent or self.conf.host

    def sending(self, host: str) -> None:
        """Record that the task is about to be sent to `host`.

        Raises FarmUnreachable if another call has sent it elsewhere, or if it was sent too often.
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
        """Now that the task is at `host`, send other waiting tasks there for up to DELIVER_S, and print a summary."""
        if self._idle:
            return
        from farmhand.offline import deliver

        report = deliver.visit(client, host, self.spool, key, within_s=DELIVER_S)
        news = []
        for ids, what in ((report.delivered, f"sent to {host}"), (report.finished, "ended")):
            count = len(set(ids) - {self.task["id"]})
            if count:
                news.append(f"{count} queued {'task' if count == 1 else 'tasks'} {what}")
        if news:
            note(f"{', '.join(news)} (farmhand flush shows them)")

    def ended(self, result: dict[str, Any], host: str) -> None:
        """Keep the task's result if the task was in the spool."""
        if self.waiting is not None:
            self.spool.finish(self.task["id"], result, host)

    def failed(self, error: WireError, host: str) -> FarmhandError:
        """Return the error to raise when the task may be at `host`. Spool the task if the host is lost."""
        from farmhand.cli import fallback

        failure = error.at()
        if not isinstance(failure, FarmUnreachable) or error.status or fallback.policy_of(self.conf) != "queue":
            return failure
        self.spool.add(self.task, wanted=self.conf.host, sent=host)
        return fallback.Spooled(self.task["id"], failure, at=host)


def _has_waiting(conf: Settings) -> bool:
    """Return whether there may be a task in the spool."""
    try:
        return os.path.isdir(old_spool_name(conf)) or bool(os.listdir(os.path.join(spool_name(), "waiting")))
    except OSError:
        return False
