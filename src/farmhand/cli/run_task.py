"""The work of `farmhand run`, which is `claude-cheap`: run one task. Only its answer goes to stdout.

Start-up time counts for every call, so what most calls do not need is imported where it is used: docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple, Self

from farmhand.cli import render
from farmhand.cli.prompt import assemble
from farmhand.core import settings
from farmhand.core.decoding import as_name, as_names, as_text, not_text, shown
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.ids import new_task_id
from farmhand.places import hosts
from farmhand.wire.transport import SshTransport


class RunOptions(NamedTuple):
    """The values of the command line, named as in `arguments.OPTIONS`. None means not given."""

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
    timeout_s: float | None
    max_tokens: int | None
    task_id: str | None
    host: str | None
    key_source: str | None
    connect_timeout_s: float | None
    fallback: str | None
    allow_subscription: bool | None
    config: str | None


class EarlyConnection:
    """The connection to the first host, whose ssh is started early, while the rest is prepared.

    Errors are ignored here and reported when connecting. An ssh that was not used is ended on exit.
    """

    def __init__(self, conf: settings.Settings) -> None:
        self._host: hosts.Host | None = None
        self._early: SshTransport | None = None
        with contextlib.suppress(FarmhandError):
            self._host = hosts.candidates(hosts.load_hosts(conf.hosts_name), conf.host, conf.hosts_name)[0]
            self._early = self._host.transport(conf.connect_timeout_s)
            self._early.open_early()

    def to(self, host: hosts.Host, connect_timeout_s: float) -> SshTransport:
        """Return the transport to `host`, the early one if it leads there. Raises WireError."""
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
    """Run the task that `options` describe and return the exit status."""
    with render.errors_as_json(options.as_json):
        flags = {name: value for name, value in options._asdict().items() if hasattr(settings.Settings, name)}
        conf = settings.load(options.config, **flags)
        task = build_task(options, conf)
        with EarlyConnection(conf) as early:
            from farmhand.cli.carry import carry

            return carry(task, conf, early.to, as_json=options.as_json)


def build_task(options: RunOptions, conf: settings.Settings) -> dict[str, Any]:
    """Return the task as the protocol has it. Fields that were not given are left out. Raises UsageError."""
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
    """Return the JSON Schema in the file `given`, or in `given` itself if it begins with `{`. Raises UsageError."""
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
    try:
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise not_text(where) from None
    from farmhand.core import schemas  # not at the top: most calls have no schema

    if message := schemas.problem(schema):
        raise UsageError(f"{where}: {message}", code="invalid_schema")
    return schema
