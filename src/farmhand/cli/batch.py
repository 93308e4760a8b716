"""`farmhand batch`: a file of tasks to all farm hosts, results to a file; stopped and given again it goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from farmhand.batch import sources
from farmhand.batch.accounting import BatchLedger
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.journal import VERSION, Journal
from farmhand.batch.output import OutputFile
from farmhand.batch.prepare import BatchPlan, InvalidInput, prepare
from farmhand.batch.worker_state import WorkerLimits
from farmhand.cli import render
from farmhand.cli.app import note
from farmhand.cli.progress import ProgressDisplay, summary
from farmhand.cli.signals import TwoStops
from farmhand.cli.up import find_project
from farmhand.core import settings
from farmhand.core.decoding import as_name, as_names, as_text
from farmhand.core.errors import FarmhandError, UsageError, WireError
from farmhand.core.keys import without_secrets
from farmhand.core.keysource import read_key
from farmhand.core.task import TASK_ID
from farmhand.places.base import Place, PlaceSettings
from farmhand.places.table import PLACES
from farmhand.wire import problems

_AGAIN = "give the same command again: it goes on from here"


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What was given on the command line; None stands for not given."""

    inputs: tuple[str, ...]
    out: str
    form: str
    files: bool
    template: str | None
    ordered: bool
    retry_failed: bool
    restart: bool
    batch: str | None
    as_json: bool
    model: str | None
    system: str | None
    schema: str | None
    engine: str | None
    tools: tuple[str, ...]
    network: str | None
    timeout: float | None
    max_tokens: int | None
    labels: tuple[str, ...]
    work_class: str | None
    priority: int | None
    economy: bool
    max_usd: float | None
    concurrency: int | None
    hosts: str
    inventory: str | None
    key_source: str | None
    patience: float | None
    project_dir: str | None
    config: str | None


@click.command(
    "batch",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all done, 1 a task failed or was cancelled, 2 usage (nothing was sent), 3 not configured, "
    "4 no farm host answers, 5 refused by policy or budget, 130 stopped by Ctrl-C. After 1, 3, 4, 5 and 130 the same "
    "command goes on.",
)
@click.argument("inputs", nargs=-1, required=True, metavar="IN")
@click.option("--out", required=True, metavar="FILE", help="Where results go, as JSON Lines, as they come.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "jsonl", "csv", "files", "files-from"]),
    default="auto",
    help="auto (default): csv for .csv and .tsv, else jsonl. files: IN are text files, directories or patterns; "
    "files-from: IN is a list of files.",
)
@click.option("--files", is_flag=True, help="The same as --format files.")
@click.option(
    "--template", metavar="FILE|TEXT", help="The prompt, with {column} in it; of files {path}, {name} and {text}."
)
@click.option("--ordered", is_flag=True, help="Write results in the input's order.")
@click.option(
    "--retry-failed", is_flag=True, help="Run again what failed or was cancelled, and leave one line per task in FILE."
)
@click.option("--restart", is_flag=True, help="Forget FILE, an output of this command, and begin anew.")
@click.option("--batch", metavar="NAME", help="The batch's name; by default a new one, kept beside FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and no progress.")
@click.option("-m", "--model", metavar="NAME", help="haiku (default), sonnet, opus or a full model id.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--schema", metavar="FILE|JSON", help="JSON Schema that each answer must satisfy.")
@click.option(
    "--engine", type=click.Choice(["auto", "api", "cli"]), help="auto (default): cli when tools are asked for."
)
@click.option("--tools", multiple=True, metavar="NAME[,NAME…]", help="Tools the tasks may use, such as Bash,Read.")
@click.option("--network", type=click.Choice(["none", "full"]), help="What the tasks' tools reach.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Each task's time; 0 for the farm host's limit.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Free text that comes back; repeatable.")
@click.option("--work-class", metavar="NAME", help="What kind of work it is, for the reports.")
@click.option("--priority", type=int, metavar="N", help="Higher runs first; 0 by default.")
@click.option("--economy", is_flag=True, help="Half the price through Message Batches; answers may take a day.")
@click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), metavar="X", help="What all of it may cost.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="How many tasks run at once in all.")
@click.option("--hosts", default="farm", metavar="PATTERN", help="Ansible's pattern of hosts; farm by default.")
@click.option("-i", "--inventory", metavar="PATH", help="The inventory, if it is not the checkout's.")
@click.option(
    "--key-source", metavar="SOURCE", help="file:PATH[#NAME], env:NAME, keyring:SERVICE/USER or command:ARGV."
)
@click.option("--patience", type=float, metavar="SECONDS", help="How long to wait while no farm host answers.")
@click.option("--project-dir", metavar="DIR", help="The checkout with site.yml.")
@click.option("--config", metavar="FILE", help="The settings file.")
def command(**given: Any) -> int:
    """Run every task of IN on the farm hosts and write the results to FILE.

    IN is JSON Lines: a task (an object with at least prompt) or a prompt (a string) a line; - is stdin. With --template
    it is a table, as CSV or JSON Lines, or with --files a list of text files. It is checked as a whole before anything
    is sent. What is done is kept beside FILE (FILE.farmhand), so that the same command goes on where it was stopped.
    """
    options = BatchOptions(**given)
    try:
        return run(options)
    except InvalidInput as error:
        if options.as_json:
            lines = [without_secrets(line) for line in error.lines]
            render.write_json({"error": {**render.error_object(error)["error"], "lines": lines}})
        for line in error.lines:
            note(line)
        raise
    except FarmhandError as error:
        if options.as_json:
            render.write_json(render.error_object(error))
        raise


def run(options: BatchOptions) -> int:
    """Do what `options` say; the exit status."""
    conf = settings.load(
        options.config,
        model=options.model,
        key_source=options.key_source,
        timeout_s=options.timeout,
        project_dir=options.project_dir,
        patience_s=options.patience,
    )
    project = find_project(conf.project_dir, Path.cwd())
    where = PlaceSettings(project_dir=project, inventory=_inventory(options.inventory), pattern=options.hosts)
    if options.batch is not None and not TASK_ID.fullmatch(as_name(options.batch, "--batch")):
        raise UsageError(f"--batch {options.batch!r:.80} does not match {TASK_ID.pattern}")
    form = "files" if options.files else options.form
    source, about = sources.source(options.inputs, form, options.template, defaults(options, conf))
    about |= {"defaults": defaults(options, conf), "ordered": options.ordered}
    plan = BatchPlan(source, options.batch or "", about)
    journal = open_journal(options)
    try:
        key = _prepared(plan, journal, conf.key_source)
        if options.retry_failed:
            with journal.transaction():
                journal.retry_failed()
        output = OutputFile(Path(options.out), journal, ordered=options.ordered)
        output.open()
        try:
            return farm_out(options, conf, PLACES["farm"](where), BatchLedger(journal, output), key)
        finally:
            output.close()
    finally:
        journal.close()


def _inventory(given: str | None) -> str | None:
    """Ansible runs in the checkout: a path is made absolute; a list of hosts (with a comma) is left as it is."""
    return str(Path(given).resolve()) if given and "," not in given else given


def defaults(options: BatchOptions, conf: settings.Settings) -> dict[str, Any]:
    """The fields that every task has which does not say otherwise. Raises UsageError."""
    schema = None
    if options.schema is not None:
        # It is imported with what a single task needs, which is of no use here.
        from farmhand.cli.run import read_schema

        schema = read_schema(options.schema)
    if any("=" not in label for label in options.labels):
        raise UsageError("--label is not of the form NAME=VALUE")
    given = {
        "system": options.system and as_text(options.system, "--system"),
        "model": conf.model and as_name(conf.model, "--model"),
        "engine": options.engine,
        "network": options.network,
        "max_tokens": options.max_tokens,
        "timeout_s": conf.timeout_s,
        "tools": as_names(options.tools, "--tools"),
        "schema": schema,
        "labels": dict(as_name(label, "--label").partition("=")[::2] for label in options.labels),
        "work_class": options.work_class and as_name(options.work_class, "--work-class"),
        "priority": options.priority,
        "economy": options.economy,
    }
    return {name: value for name, value in given.items() if value not in (None, "", [], {}, 0.0, False)}


def open_journal(options: BatchOptions) -> Journal:
    """The journal beside the output, which must not be somebody else's. Raises UsageError."""
    out = Path(options.out)
    path = out.with_name(out.name + ".farmhand")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no directory {out.parent}")
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is not a regular file")
    if any(name != "-" and Path(name).exists() and out.exists() and out.samefile(name) for name in options.inputs):
        raise UsageError(f"--out {out} is the input")
    journal = Journal(path, any_version=options.restart)
    if options.restart:
        _forget(out, journal, ordered=options.ordered)
        journal = Journal(path)
    if journal.fresh and out.exists() and out.stat().st_size:
        journal.remove()
        raise UsageError(f"--out {out} is there already, without its {path.name}", hint="choose another --out")
    return journal


def _forget(out: Path, journal: Journal, *, ordered: bool) -> None:
    """Remove an output and its journal. Raises UsageError where the file is no output of the journal's batch."""
    try:
        if journal.fresh and out.exists() and out.stat().st_size:
            what = f"--restart: {out} is not known to be an output of farmhand batch, {journal.path.name} is missing"
            raise UsageError(what, hint="move it away, or choose another --out")
        # What another version has in its tables is not known here.
        OutputFile(out, journal, ordered=ordered).check(any_batch=journal.version != VERSION)
    except BaseException:
        if journal.fresh:
            journal.remove()
        else:
            journal.close()
        raise
    out.unlink(missing_ok=True)
    journal.remove()


def _prepared(plan: BatchPlan, journal: Journal, key_source: str) -> str:
    """Have the journal filled, or checked; the key. A wrong input is told of even where there is no key."""
    fresh, key, problem = journal.fresh, "", None
    try:
        key = read_key(key_source)
    except WireError as error:
        problem = problems.from_wire(error)
    secret = key.encode()
    prepare(plan, journal, lambda data: bool(secret) and secret in data)
    if problem is not None:
        if fresh:
            journal.remove()
        raise problem
    return key


def farm_out(options: BatchOptions, conf: settings.Settings, place: Place, book: BatchLedger, key: str) -> int:
    """Run what is not done yet, and say how it went; the exit status."""
    mode = "quiet" if options.as_json else "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
    progress = ProgressDisplay(mode, book.totals.as_dict())
    limits = WorkerLimits(
        max_usd=options.max_usd,
        concurrency=options.concurrency,
        patience_s=conf.patience_s,
        economy=options.economy,
    )
    coordinator = Coordinator(book, place, key, limits, progress.say)
    began = time.monotonic()
    stopped = None

    def show() -> None:
        progress.update(book.totals.as_dict() | {"waiting": coordinator.waiting_for})
        progress.tick()

    if book.totals.left:
        with TwoStops(lambda: _stop(coordinator, progress), coordinator.kill) as stops:
            coordinator.run(show)
        stopped = stops.number
        show()
    progress.close()
    return _report(options, book, coordinator.error, stopped, time.monotonic() - began)


def _stop(coordinator: Coordinator, progress: ProgressDisplay) -> None:
    progress.say("stopping: what has not started is taken back, what runs has a few seconds (again: at once)")
    coordinator.stop()


def _report(
    options: BatchOptions, book: BatchLedger, error: FarmhandError | None, stopped: int | None, seconds: float
) -> int:
    totals = book.totals
    whole = totals.as_dict() | {"batch": book.batch, "out": options.out, "left": totals.left}
    whole |= {"seconds": round(seconds, 3), "per_s": round(totals.finished_now / seconds, 2) if seconds else 0.0}
    del whole["succeeded"]
    if error is not None:
        whole |= render.error_object(error)
    if options.as_json:
        render.write_json(whole)
    else:
        render.write_bytes(summary(whole))
    if error is not None and totals.left:
        note(str(error))
        return error.exit_code
    if stopped is not None and totals.left:
        note(f"stopped; {_AGAIN}")
        return 128 + stopped
    return 1 if totals.failed or totals.cancelled else 0
