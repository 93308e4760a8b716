"""`farmhand batch`: run a file of tasks on all farm hosts and write a file of results. A stopped batch can resume."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from farmhand.batch import sources
from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import fill_journal, open_journal
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.output import OutputFile
from farmhand.batch.prepare import BatchPlan, InvalidInput
from farmhand.batch.worker_state import WorkerLimits
from farmhand.cli import render
from farmhand.cli.progress import ProgressDisplay, summary
from farmhand.cli.say import note
from farmhand.cli.signals import caught
from farmhand.cli.task_options import read_schema
from farmhand.cli.verb import VerbResult, print_result, verb
from farmhand.core.decoding import as_name, as_names, as_text
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.settings import Settings
from farmhand.core.task import TASK_ID
from farmhand.places.base import Place, PlaceSettings
from farmhand.places.checkout import find_project
from farmhand.places.table import PLACES


@verb(
    "batch",
    *(
        "model",
        "system",
        "schema",
        "engine",
        "tools",
        "network",
        "timeout_s",
        "max_tokens",
        "key_source",
        "project_dir",
    ),
    json_help="Print one JSON object at the end, and no progress.",
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
@click.option("--restart", is_flag=True, help="Forget FILE, an output of this command, and start from the beginning.")
@click.option("--batch", metavar="NAME", help="The batch's name; by default a new one, kept beside FILE.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Free text that comes back; repeatable.")
@click.option("--work-class", metavar="NAME", help="What kind of work it is, for the reports.")
@click.option("--priority", type=int, metavar="N", help="Higher runs first; 0 by default.")
@click.option("--economy", is_flag=True, help="Half the price through Message Batches; answers may take a day.")
@click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), metavar="X", help="What all of it may cost.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="How many tasks run at once in all.")
@click.option("--hosts", default="farm", metavar="PATTERN", help="Ansible's pattern of hosts; farm by default.")
@click.option("-i", "--inventory", metavar="PATH", help="The inventory, if it is not the checkout's.")
@click.option(
    "--patience", "patience_s", type=float, metavar="SECONDS", help="How long to wait while no farm host answers."
)
def command(
    conf: Settings,
    *,
    as_json: bool,
    inputs: tuple[str, ...],
    out: str,
    form: str,
    files: bool,
    template: str | None,
    ordered: bool,
    retry_failed: bool,
    restart: bool,
    batch: str | None,
    max_usd: float | None,
    concurrency: int | None,
    hosts: str,
    inventory: str | None,
    **task: Any,
) -> int:
    """Run every task of IN on the farm hosts and write the results to FILE.

    IN is JSON Lines: a task (an object with at least prompt) or a prompt (a string) a line; - is stdin. With --template
    it is a table, as CSV or JSON Lines, or with --files a list of text files. It is checked as a whole before anything
    is sent. What is done is kept beside FILE (FILE.farmhand), so that the same command goes on where it was stopped.
    """
    if inventory and "," not in inventory:
        # Ansible runs in the checkout, so a path must be absolute. With a comma it is a list of hosts, not a path.
        inventory = str(Path(inventory).resolve())
    where = PlaceSettings(project_dir=find_project(conf.project_dir, Path.cwd()), inventory=inventory, pattern=hosts)
    if batch is not None and not TASK_ID.fullmatch(as_name(batch, "--batch")):
        raise UsageError(f"--batch {batch!r:.80} does not match {TASK_ID.pattern}")
    given = defaults(conf, task)
    source, about = sources.source(inputs, "files" if files else form, template, given)
    plan = BatchPlan(source, batch or "", about | {"defaults": given, "ordered": ordered})
    limits = WorkerLimits(
        max_usd=max_usd, concurrency=concurrency, patience_s=conf.patience_s, economy=bool(given.get("economy"))
    )
    journal = open_journal(Path(out), inputs, restart=restart, ordered=ordered)
    try:
        key = fill_journal(plan, journal, conf.key_source)
        if retry_failed:
            with journal.transaction():
                journal.retry_failed()
        output = OutputFile(Path(out), journal, ordered=ordered)
        output.open()
        try:
            return farm_out(BatchLedger(journal, output), PLACES["farm"](where), limits, key, out=out, as_json=as_json)
        finally:
            output.close()
    except InvalidInput as error:
        for line in error.lines:
            note(line)
        raise
    finally:
        journal.close()


def defaults(conf: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Return the default fields of the batch's tasks, from the options `given`. Raises UsageError."""
    if any("=" not in label for label in given["labels"]):
        raise UsageError("--label is not of the form NAME=VALUE")
    fields = given | {
        "system": given["system"] and as_text(given["system"], "--system"),
        "model": conf.model and as_name(conf.model, "--model"),
        "timeout_s": conf.timeout_s,
        "tools": as_names(given["tools"], "--tools"),
        "schema": None if given["schema"] is None else read_schema(given["schema"]),
        "labels": dict(as_name(label, "--label").partition("=")[::2] for label in given["labels"]),
        "work_class": given["work_class"] and as_name(given["work_class"], "--work-class"),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, 0.0, False)}


def farm_out(book: BatchLedger, place: Place, limits: WorkerLimits, key: str, *, out: str, as_json: bool) -> int:
    """Run the unfinished tasks, print the summary, and return the exit status."""
    mode = "quiet" if as_json else "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
    progress = ProgressDisplay(mode, book.totals.as_dict())
    coordinator = Coordinator(book, place, key, limits, progress.say)
    began = time.monotonic()
    signals: list[int] = []

    def show() -> None:
        progress.update(book.totals.as_dict() | {"waiting": coordinator.waiting_for})
        progress.tick()

    if book.totals.left:

        def on_signal(number: int, _frame: object) -> None:
            signals.append(number)
            if len(signals) == 1:
                progress.say(
                    "stopping: what has not started is taken back, what runs has a few seconds (again: at once)"
                )
                coordinator.stop()
            else:
                coordinator.kill()

        with caught(on_signal):
            coordinator.run(show)
        show()
    progress.close()
    totals = book.totals
    seconds = time.monotonic() - began
    whole = totals.as_dict() | {"batch": book.batch, "out": out, "left": totals.left}
    whole |= {"seconds": round(seconds, 3), "per_s": round(totals.finished_now / seconds, 2) if seconds else 0.0}
    del whole["succeeded"]
    error: FarmhandError | None = coordinator.error
    if error is not None:
        whole |= render.error_object(error)
    status = print_result(
        VerbResult(whole, summary(whole), 1 if totals.failed or totals.cancelled else 0), as_json=as_json
    )
    if error is not None and totals.left:
        note(str(error))
        return error.exit_code
    if signals and totals.left:
        note("stopped; give the same command again: it goes on from here")
        return 128 + signals[0]
    return status
