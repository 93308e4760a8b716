"""The work of `farmhand run`, which is `claude-cheap`: one task, its answer on stdout and nothing else there.

Every call starts up, so what an ordinary one does not need is imported where it is used; see docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple, Self

from farmhand.cli.prompt import assemble, check_text
from farmhand.core import settings
from farmhand.core.decoding import as_name, as_names, as_text, shown
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.ids import new_task_id
from farmhand.places import hosts
from farmhand.wire.transport import SshTransport


class RunOptions(NamedTuple):
    """What was given on the command line; None stands for not given."""

    prompt: str | None
    file: tuple[str, ...]
    no_stdin: bool
    as_json: bool
    model: str | None
    system: str | None
    schema: str | None
    engine: str | None
    tools: tuple[str, ...]
    network: str | None
    timeout: float | None
    max_tokens: int | None
    task_id: str | None
    host: str | None
    key_source: str | None
    connect_timeout: float | None
    fallback: str | None
    allow_subscription: bool | None
    config: str | None


class EarlyConnection:
    """The way to the host that is asked first, taken early: ssh starts while the rest is being made ready.

    That there is none is no news here: whoever connects finds out. On leaving, an ssh that nobody took is ended.
    """

    def __init__(self, conf: settings.Settings) -> None:
        self._host: hosts.Host | None = None
        self._early: SshTransport | None = None
        with contextlib.suppress(FarmhandError):
            self._host = hosts.candidates(hosts.load_hosts(conf.hosts_name), conf.host, conf.hosts_name)[0]
            self._early = self._host.transport(conf.connect_timeout_s)
            self._early.open_early()

    def to(self, host: hosts.Host, connect_timeout_s: float) -> SshTransport:
        """The way to `host`, which may have been taken already. Raises WireError."""
        if self._early is None or host != self._host:
            return host.transport(connect_timeout_s)
        self._early.connect_timeout_s = connect_timeout_s
        return self._early

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._early is not None:
            self._early.close_early()


def main(options: RunOptions) -> int:
    """Do what `options` say; the exit status."""
    try:
        return _run(options)
    except FarmhandError as error:
        if options.as_json:
            from farmhand.cli import render

            task_id = getattr(error, "task_id", "")
            spooled = {"id": task_id, "state": "spooled"} if task_id else {}
            render.write_json(spooled | render.error_object(error))
        raise


def _run(options: RunOptions) -> int:
    conf = settings.load(
        options.config,
        host=options.host,
        model=options.model,
        key_source=options.key_source,
        connect_timeout_s=options.connect_timeout,
        timeout_s=options.timeout,
        fallback=options.fallback,
        allow_subscription=options.allow_subscription,
    )
    task = build_task(options, conf)
    with EarlyConnection(conf) as way:
        from farmhand.cli.carry import carry

        return carry(options, conf, task, way)


def build_task(options: RunOptions, conf: settings.Settings) -> dict[str, Any]:
    """The task as the wire has it; what is not asked for is left to the agent's defaults. Raises UsageError."""
    names = {"--id": options.task_id, "--model": conf.model}
    task_id, model = (given and as_name(given, option) for option, given in names.items())
    task: dict[str, Any] = {
        "id": task_id or new_task_id(),
        "prompt": assemble(options.prompt, options.file, use_stdin=not options.no_stdin),
        "timeout_s": conf.timeout_s,
    }
    optional = {
        "system": options.system and as_text(options.system, "--system"),
        "model": model,
        "engine": options.engine,
        "network": options.network,
        "max_tokens": options.max_tokens,
        "tools": as_names(options.tools, "--tools"),
        "schema": None if options.schema is None else read_schema(options.schema),
    }
    return task | {name: value for name, value in optional.items() if value not in (None, "", [])}


def read_schema(given: str) -> dict[str, Any]:
    """The schema in the file called `given`, or in `given` itself when that begins with a brace. Raises UsageError."""
    where = "--schema"
    if given.lstrip().startswith("{"):
        text = as_text(given, where)
    else:
        where = f"--schema {shown(given)}"
        try:
            with open(given, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}", code="invalid_schema") from None
        except ValueError:
            raise UsageError(f"{where}: not UTF-8 text", code="invalid_schema") from None
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}", code="invalid_schema") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{where}: a JSON Schema is an object", code="invalid_schema")
    check_text(schema, where)
    from farmhand.core import schemas  # not at the top: most calls have none

    if message := schemas.problem(schema):
        raise UsageError(f"{where}: {message}", code="invalid_schema")
    return schema
