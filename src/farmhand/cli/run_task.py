"""The work of `farmhand run`, which is `claude-cheap`: one task, its answer on stdout and nothing else there.

Every call starts up, so what an ordinary one does not need is imported where it is used; see docs/benchmarks.md.
"""

from __future__ import annotations

import json

from farmhand.cli.prompt import assemble
from farmhand.dispatch import hosts, settings
from farmhand.dispatch.record import Record
from farmhand.errors import FarmhandError, UsageError
from farmhand.wire.errors import WireError
from farmhand.wire.ids import new_task_id

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from typing import Any, Self

    from farmhand.wire.transport import SshTransport


class Options(Record):
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
    config: str | None


class Way:
    """The way to the host that the settings choose. It is taken early: ssh starts while the rest is being made ready.

    That there is none is no news before `transport` is asked for it. On leaving, an ssh that nobody took is ended.
    """

    def __init__(self, conf: settings.Settings) -> None:
        self._transport: SshTransport | None = None
        self._problem: FarmhandError | WireError | None = None
        try:
            host = hosts.choose_host(hosts.load_hosts(conf.hosts_name), conf.host, conf.hosts_name)
            self._transport = host.transport(conf.connect_timeout_s)
            self._transport.open_early()
        except (FarmhandError, WireError) as error:
            self._problem = error

    def transport(self) -> SshTransport:
        """The way, or why there is none: FarmhandError, WireError."""
        if self._problem is not None:
            raise self._problem
        assert self._transport is not None  # noqa: S101  (for the type checker)
        return self._transport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close_early()


def main(options: Options) -> int:
    """Do what `options` say; the exit status."""
    try:
        return _run(options)
    except FarmhandError as error:
        if options.as_json:
            from farmhand.cli import render

            render.write_json(render.error_object(error))
        raise


def _run(options: Options) -> int:
    conf = settings.load(
        options.config,
        host=options.host,
        model=options.model,
        key_source=options.key_source,
        connect_timeout_s=options.connect_timeout,
        timeout_s=options.timeout,
    )
    task = build_task(options, conf)
    with Way(conf) as way:
        from farmhand.cli.carry import carry

        return carry(options, conf.key_source, task, way)


def build_task(options: Options, conf: settings.Settings) -> dict[str, Any]:
    """The task as the wire has it; what is not asked for is left to the agent's defaults. Raises UsageError."""
    task: dict[str, Any] = {
        "id": options.task_id or new_task_id(),
        "prompt": assemble(options.prompt, options.file, use_stdin=not options.no_stdin),
        "timeout_s": conf.timeout_s,
    }
    optional = {
        "system": _text(options.system, "--system"),
        "model": conf.model,
        "engine": options.engine,
        "network": options.network,
        "max_tokens": options.max_tokens,
        "tools": [name.strip() for names in options.tools for name in names.split(",") if name.strip()],
        "schema": None if options.schema is None else read_schema(options.schema),
    }
    return task | {name: value for name, value in optional.items() if value not in (None, "", [])}


def read_schema(given: str) -> dict[str, Any]:
    """The schema in the file called `given`, or in `given` itself when that begins with a brace. Raises UsageError."""
    where = "--schema"
    text = given
    if not given.lstrip().startswith("{"):
        where = f"--schema {given}"
        try:
            with open(given, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}", code="invalid_schema") from None
        except ValueError:
            raise UsageError(f"{where}: not UTF-8 text", code="invalid_schema") from None
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}", code="invalid_schema") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{where}: a JSON Schema is an object", code="invalid_schema")
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        at = "/".join(map(str, error.absolute_path)) or "its top"
        raise UsageError(f"{where}: not a JSON Schema at {at}: {error.message}", code="invalid_schema") from None
    return schema


def _text(value: str | None, where: str) -> str | None:
    """An argument that is text; bytes that are not UTF-8 come in as lone surrogates."""
    if value is not None and any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(f"{where} is not valid UTF-8", code="invalid_prompt", hint="convert it first")
    return value
