"""The work of `farmhand run`, which is `claude-cheap`: run one task. Only its answer goes to stdout.

Start-up time counts for every call, so what most calls do not need is imported where it is used: docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from farmhand.cli import render
from farmhand.cli.say import note
from farmhand.core import settings
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.places import hosts
from farmhand.wire.transport import ProcessTransport

if TYPE_CHECKING:
    from farmhand.places.reach import Way


@contextlib.contextmanager
def early_connection(conf: settings.Settings) -> Iterator[Way]:
    """Start ssh to the first host while the rest is prepared. Yield what returns the transport to a host.

    Errors are ignored here and reported when connecting. An ssh that was not used is ended on exit.
    """
    first: hosts.Host | None = None
    early: ProcessTransport | None = None
    with contextlib.suppress(FarmhandError):
        first = hosts.candidates(hosts.known_hosts(conf), conf.host, conf.hosts_name)[0]
        early = first.transport(conf.connect_timeout_s)
        early.open_early()

    def way(host: hosts.Host, connect_timeout_s: float) -> ProcessTransport:
        if early is None or host != first:
            return host.transport(connect_timeout_s)
        early.connect_timeout_s = connect_timeout_s
        return early

    try:
        yield way
    finally:
        if early is not None:
            early.close_early()


def main(given: dict[str, Any]) -> int:
    """Run the task that the values of `arguments.OPTIONS` describe and return the exit status. None means not given."""
    with render.errors_as_json(given["as_json"]):
        extract = "last" if given["extract_last"] else "first" if given["extract"] else ""
        if extract and (given["as_json"] or given["schema"]):
            raise UsageError("--extract is for an answer in text: leave out --json and --schema")
        if given["events"] and not given["as_json"]:
            raise UsageError("--events comes before the result of --json", hint="give --json too")
        if given["last"]:
            from farmhand.cli import last

            if given["prompt"] is not None or given["file"]:
                raise UsageError("--last prints the last answer, and there is a prompt beside it", hint="leave one out")
            return last.show(as_json=given["as_json"], extract=extract)
        flags = {name: value for name, value in given.items() if name in settings.Settings._fields}
        conf = settings.load(given["config"], **flags)
        if given["chat"] or given["go_on"] or given["conversation"] is not None:
            from farmhand.cli import chat

            return chat.main(given, conf, extract, early_connection)
        # A prompt from stdin comes whenever its writer ends: no connection waits for that.
        task = _task(given, conf) if given["prompt"] is None or "-" in given["file"] else None
        if task and (pot := task.get("pot", conf.pot)) != conf.pot:
            # That of --task: its keys are the ones to send.
            conf = settings.load(given["config"], **flags | {"pot": pot})
        if conf.place in settings.AWS_PLACES:
            from farmhand.cli.cloud import task as on_fargate

            if given["when_spent"] is not None:
                raise UsageError("--when-spent is not for a task on AWS", hint="leave --place out")
            task = task or _task(given, conf)
            about = {"as_json": given["as_json"], "extract": extract, "subscription": given["subscription"]}
            return on_fargate.carry(task, conf, **about)
        if given["subscription"]:
            raise UsageError("--subscription is for --place fargate", hint="elsewhere: --fallback subscription")
        hosts.make_ready(conf, note)
        with early_connection(conf) as way:
            with _fast_msgspec():
                from farmhand.cli.carry import carry

            about = {"as_json": given["as_json"], "events": given["events"], "extract": extract}
            return carry(task or _task(given, conf), conf, way, **about)


@contextlib.contextmanager
def _fast_msgspec() -> Iterator[None]:
    """Let msgspec be imported in the block without typing_extensions, and so inspect and ast: a tenth of a call.

    msgspec takes typing instead, which has the same since Python 3.11. There is no other thread yet that could miss it.
    """
    name = "typing_extensions"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # so that its import raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]


def _task(given: dict[str, Any], conf: settings.Settings) -> dict[str, Any]:
    from farmhand.cli.task_options import build_task

    task = build_task(given, conf)
    if given["when_spent"] is not None:
        from farmhand.cli.lower_price import refuse_pointless

        refuse_pointless(task, conf)
    return task
