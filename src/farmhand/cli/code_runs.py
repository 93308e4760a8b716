"""The two ways to run a repository task: in containers on this machine, and on Fargate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from farmhand.cli.carry import cancelled_when_stopped, task_span
from farmhand.cli.say import note
from farmhand.cli.signals import Stoppable
from farmhand.cli.waiting import WaitLine
from farmhand.code.repository import FetchedCommit
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError, WireError
from farmhand.core.keys import holds_key
from farmhand.core.readable import printable
from farmhand.core.settings import Settings
from farmhand.core.task import TASK_OUTPUTS
from farmhand.places import docker
from farmhand.places.hosts import credential, make_ready
from farmhand.wire.client import Client
from farmhand.wire.follow import run_task

if TYPE_CHECKING:
    from farmhand.aws.places.run_task import FargateTask
    from farmhand.cli.telemetry import TaskSpan

FARGATE = "fargate"


class CodeRun(Protocol):
    """One run of the task. Making it checks what can be checked without the repository. Raise FarmhandError."""

    def cancelled(self, stoppable: Stoppable) -> AbstractContextManager[None]:
        """Return a context that ends the task if a signal stops the body, and says so. It raises Stopped.

        At its end the task's spans are sent, where they are wanted.
        """

    def run(
        self, source: FetchedCommit | None, directory: Path, stoppable: Stoppable, *, quiet: bool
    ) -> dict[str, Any]:
        """Run the task on the commit, leave its files in `directory`, and return its result.

        Without a commit the task fetches it itself.
        """


class LiveText:
    """A task's text on stderr as it comes, through `printable`; nothing if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._open = False
        self.shown = ""

    def show(self, text: str) -> None:
        """Show a piece of it."""
        if text and not self._quiet:
            self.shown += text
            self._open = not text.endswith("\n")
            sys.stderr.write(printable(text))
            sys.stderr.flush()

    def note(self, line: str) -> None:
        """Print one of the command's own lines, below what the task has said so far."""
        if self._open:
            self.end()
        note(line)

    def end(self) -> None:
        """End the last line."""
        if not self._quiet:
            self._open = False
            sys.stderr.write("\n")


class DockerRun:
    """In containers on this machine. The task's text is shown as it comes."""

    def __init__(self, conf: Settings, task: dict[str, Any]) -> None:
        self._conf, self._task = conf, task
        self._key = credential(conf)
        if holds_key(task, self._key):
            raise UsageError("the API key itself stands in the task", hint="take it out", code="key_in_task")
        host = docker.host(conf)
        self._agent = host.address
        self._transport = host.transport(conf.connect_timeout_s)
        self._span: TaskSpan | None = None

    @contextmanager
    def cancelled(self, stoppable: Stoppable) -> Iterator[None]:
        """See CodeRun."""
        with (
            task_span(self._conf) as self._span,
            cancelled_when_stopped(self._transport, self._task["id"], stoppable, lambda: None, self._span),
        ):
            yield

    def run(
        self, source: FetchedCommit | None, directory: Path, stoppable: Stoppable, *, quiet: bool
    ) -> dict[str, Any]:
        """See CodeRun."""
        assert source is not None  # noqa: S101  (containers on this machine clone nothing)
        make_ready(self._conf, note)
        with Client(self._transport) as client:
            return self._run(client, source, directory, stoppable, quiet=quiet)

    def _run(
        self, client: Client, source: FetchedCommit, directory: Path, stoppable: Stoppable, *, quiet: bool
    ) -> dict[str, Any]:
        live = LiveText(quiet=quiet)

        def on_event(event: dict[str, Any]) -> None:
            wait.event(client.transport.name, event)
            if event.get("type") == "text":
                wait.close()
                live.show(str(event.get("text") or ""))

        with WaitLine() as wait:
            wait.on("the repository is sent")
            client.put_bundle(self._task["id"], source.bundle)
            try:
                result = run_task(
                    client,
                    self._task | (self._span.fields if self._span is not None else {}),
                    self._key,
                    on_event,
                    on_submitting=stoppable.hold,
                    on_submitted=stoppable.release,
                )
            finally:
                live.end()
        if self._span is not None:
            self._span.at_agent(result, client)
        try:
            for name, most in TASK_OUTPUTS.items():
                with (directory / name).open("wb") as file:
                    client.get_file(self._task["id"], name, file, most)
        except (WireError, OSError) as error:
            said = error.message if isinstance(error, WireError) else f"{directory}: {error.strerror}"
            hint = f"docker cp {self._agent}:/var/lib/farmhand/files/{self._task['id']} . has them"
            raise FarmhandError(
                f"the task has ended, and its files cannot be fetched: {said}", hint=hint, code="files_left"
            ) from None
        return result


class FargateRun:
    """On Fargate. `where` is the repository; `asked` is whether the operator named this place.

    `more` are spot, subscription, clone and source of FargateTask.
    """

    def __init__(self, conf: Settings, task: dict[str, Any], where: str, *, asked: bool, **more: Any) -> None:
        from farmhand.cli.cloud import task as on_fargate  # not at the top: most tasks do not need AWS

        on_fargate.check(task, conf)
        self._span: TaskSpan | None = None
        try:
            self._prepared: FargateTask = on_fargate.prepared(conf, task, "code", **more)
        except NotConfigured as error:
            if asked:
                raise
            what = f"{where} is not a repository that you trust with this machine, and Fargate is not to be had"
            hint = f"{error.hint}; or --trust runs it in containers here, as trusted_repos of config.toml does"
            raise NotConfigured(f"{what}: {error.message}", hint=hint.removeprefix("; or ")) from None

    @contextmanager
    def cancelled(self, stoppable: Stoppable) -> Iterator[None]:
        """See CodeRun."""
        from farmhand.cli.cloud import task as on_fargate

        with (
            task_span(self._prepared.conf) as self._span,
            on_fargate.ended_when_stopped(self._prepared, stoppable, self._span),
        ):
            yield

    def run(
        self, source: FetchedCommit | None, directory: Path, stoppable: Stoppable, *, quiet: bool
    ) -> dict[str, Any]:
        """See CodeRun."""
        from farmhand.cli.cloud import task as on_fargate

        task, live = self._prepared, LiveText(quiet=quiet)
        task.bundle, task.live = None if source is None else source.bundle, not quiet
        result = on_fargate.run(task, self._span) if quiet else self._shown(live)
        task.fetch(directory)
        on_fargate.tell_plan(result)
        return result

    def _shown(self, live: LiveText) -> dict[str, Any]:
        from farmhand.aws.environment.logs import TaskTextReader
        from farmhand.cli.cloud import task as on_fargate

        task = self._prepared
        texts = TaskTextReader(task.aws, task.size, live.note)
        task.say, task.looked = live.note, lambda arn: live.show(texts.new(arn))
        try:
            result = on_fargate.run(task, self._span)
            live.show(texts.rest(str(result.get("text") or ""), live.shown, task.sleep))
        finally:
            live.end()
        return result
