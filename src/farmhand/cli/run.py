"""`farmhand run`, which is `claude-cheap`: one task to the farm host, its answer on stdout and nothing else there."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from farmhand.cli import fallback, render
from farmhand.cli.app import note
from farmhand.cli.prompt import assemble
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.cli.spooling import Spooling
from farmhand.dispatch import hosts, problems, settings
from farmhand.dispatch.reach import reach
from farmhand.errors import FarmhandError, FarmUnreachable, UsageError
from farmhand.wire.client import Client
from farmhand.wire.errors import WireError
from farmhand.wire.follow import run_task
from farmhand.wire.ids import new_task_id
from farmhand.wire.keys import holds_key
from farmhand.wire.keysource import read_key
from farmhand.wire.transport import Transport

#: How long the agent may take to confirm that a task is stopped.
CANCEL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Options:
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


@click.command(
    "run",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Put -- before a prompt that begins with a dash: claude-cheap -- '--help'. Exit status: 0 done, 1 the task "
    "failed, 2 usage, 3 not configured, 4 farm unreachable (also when the task was queued), 5 refused by policy or "
    "budget, 130 stopped by Ctrl-C.",
)
@click.argument("prompt", required=False)
@click.option("-f", "--file", multiple=True, metavar="FILE", help="Add a text file below the prompt; repeatable.")
@click.option("--no-stdin", is_flag=True, help="Do not read stdin, even if something is piped in.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object.")
@click.option("-m", "--model", metavar="NAME", help="haiku (default), sonnet, opus or a full model id.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--schema", metavar="FILE|JSON", help="JSON Schema that the answer must satisfy.")
@click.option(
    "--engine", type=click.Choice(["auto", "api", "cli"]), help="auto (default): cli when tools are asked for."
)
@click.option("--tools", multiple=True, metavar="NAME[,NAME…]", help="Tools the task may use, such as Bash,Read.")
@click.option(
    "--network", type=click.Choice(["none", "full"]), help="What the task's tools reach; full if the host allows."
)
@click.option("--timeout", type=float, metavar="SECONDS", help="The task's time; 0 for the farm host's limit.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens.")
@click.option("--id", "task_id", metavar="ID", help="The task's id: the same id with the same task runs once.")
@click.option("--host", metavar="NAME", help="This farm host and no other (default: the first that answers).")
@click.option(
    "--key-source", metavar="SOURCE", help="file:PATH[#NAME], env:NAME, keyring:SERVICE/USER or command:ARGV."
)
@click.option("--connect-timeout", type=float, metavar="SECONDS", help="How long reaching the farm host may take.")
@click.option(
    "--fallback",
    type=click.Choice(settings.FALLBACKS),
    help="When no farm host answers (default: ask on a terminal, else queue).",
)
@click.option(
    "--allow-subscription/--no-allow-subscription", default=None, help="Whether your own claude login may be used."
)
@click.option("--config", metavar="FILE", help="The settings file.")
def command(**given: Any) -> int:
    """Run PROMPT as a task on the farm host and print the answer.

    The prompt is the argument, stdin, or both: the argument, a blank line, stdin. It is data: no shell and no command
    reads it. Stdin is read when there is no argument (or it is -), and beside one when it is a pipe or a redirected
    file. In a `while read` loop that is fed by a pipe, use < /dev/null or --no-stdin.
    """
    options = Options(**given)
    try:
        return run(options)
    except FarmhandError as error:
        if options.as_json:
            spooled = {"id": error.task_id, "state": "spooled"} if isinstance(error, fallback.Spooled) else {}
            render.write_json(spooled | render.error_object(error))
        raise


def run(options: Options) -> int:
    """Do what `options` say; the exit status."""
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
    printer = render.Printer(stream=not (options.as_json or options.schema) and _is_terminal(sys.stdout))
    try:
        result = answer(task, conf, printer)
    except WireError as error:
        raise problems.from_wire(error) from None
    except Stopped as stopped:
        if options.as_json:
            render.write_json({"error": {"code": "cancelled", "message": f"stopped by {stopped}", "hint": ""}})
        return stopped.exit_code
    return report(result, printer, as_json=options.as_json)


def answer(task: dict[str, Any], conf: settings.Settings, printer: render.Printer) -> dict[str, Any]:
    """The task's result: from the first farm host that answers, or as `fallback` says. Raises WireError, Stopped."""
    spooling = Spooling(task, conf)
    result = spooling.result()
    if result is not None:
        return result
    key = read_key(conf.key_source)
    if holds_key(task, key):
        hint = "take it out: it would go to the model"
        raise UsageError("the API key itself stands in the task", hint=hint, code="key_in_task")
    candidates = hosts.candidates(hosts.load_hosts(conf.hosts_path), spooling.wanted(), conf.hosts_path)
    with Stoppable() as stoppable:
        try:
            host, client = reach(candidates, conf.connect_timeout_s, lambda error: note(f"{error}; trying the next"))
        except FarmUnreachable as error:
            reason = error
        else:
            with client:
                return follow(client, host.name, key, printer, spooling, stoppable)
    return fallback.fall_back(reason, task, conf)


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
            text = Path(given).read_text("utf-8")
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


def follow(
    client: Client, host: str, key: str, printer: render.Printer, spooling: Spooling, stoppable: Stoppable
) -> dict[str, Any]:
    """Run the task to its end on `host`; if a signal stops us, stop it there as well and raise Stopped."""
    task = spooling.task

    def on_submitting() -> None:
        spooling.sending(host)
        # A task on its way must have arrived before it can be stopped, so a signal waits for that.
        stoppable.hold()

    def on_submitted() -> None:
        stoppable.release()
        spooling.sent(client, host, key)

    try:
        result = run_task(client, task, key, printer.on_event, on_submitting=on_submitting, on_submitted=on_submitted)
    except Stopped:
        printer.end_line()
        if stoppable.was_held:
            stoppable.hold()
            cancel(client.transport, task["id"])
        else:
            note("stopped")
        raise
    except WireError as error:
        raise spooling.failed(error, host) from None
    spooling.ended(result, host)
    return result


def cancel(transport: Transport, task_id: str) -> None:
    """Stop the task over a connection of its own, and say on stderr whether that worked."""
    transport.connect_timeout_s = min(transport.connect_timeout_s, CANCEL_S)
    try:
        with Client(transport, silence_s=CANCEL_S) as client:
            state = client.cancel(task_id).get("state")
        said = "task cancelled" if state == "cancelled" else f"the task had ended already: {state}"
    except WireError as error:
        said = "stopped" if error.code == "no_such_task" else f"stopped, but the task may still run: {error}"
    note(said)


def report(result: dict[str, Any], printer: render.Printer, *, as_json: bool) -> int:
    """Write the answer, or raise the task's failure."""
    failure = problems.from_result(result)
    if as_json:
        render.write_json(result)
        if failure is None:
            return 0
        note(str(failure))
        return failure.exit_code
    if failure is not None:
        printer.end_line()
        raise failure
    printer.finish(result)
    if result.get("stop_reason") == "max_tokens":
        note("the answer was cut off at its longest length (raise --max-tokens)")
    return 0


def _text(value: str | None, where: str) -> str | None:
    """An argument that is text; bytes that are not UTF-8 come in as lone surrogates."""
    if value is not None and any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(f"{where} is not valid UTF-8", code="invalid_prompt", hint="convert it first")
    return value


def _is_terminal(stream: Any) -> bool:
    return stream is not None and os.isatty(stream.fileno())
