"""`farmhand batch`: run a file of tasks on all farm hosts and write a file of results. A stopped batch can resume."""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import BatchPlan, InvalidInput, fill_journal, open_journal
from farmhand.batch.bend import Bending
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.failures import causes, cut_short
from farmhand.batch.journal import CANCELLED, FAILED, LEASED, WAITING, Journal
from farmhand.batch.output import OutputFile
from farmhand.batch.sources import OTHERS, source
from farmhand.batch.worker_state import WorkerLimits
from farmhand.cli import batch_price, colour, render, telemetry
from farmhand.cli.amount import DURATION, MAX_USD
from farmhand.cli.batch_progress import ProgressDisplay
from farmhand.cli.batch_summary import not_whole, summary, why_failed
from farmhand.cli.say import note
from farmhand.cli.signals import caught
from farmhand.cli.task_options import task_fields
from farmhand.cli.verb import VerbResult, verb
from farmhand.cli.waiting import waits_for
from farmhand.core.decoding import as_name, as_names
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.keys import Credential, own_key
from farmhand.core.money import PICO_PER_USD
from farmhand.core.readable import counted
from farmhand.core.settings import AWS_PLACES, PLACE_NAMES, Settings
from farmhand.core.task import TASK_ID
from farmhand.core.trace_context import TraceContext
from farmhand.core.when_spent import ECONOMY, by_class
from farmhand.places import docker
from farmhand.places.base import LastingPlace, Place, PlaceSettings
from farmhand.places.checkout import find_project
from farmhand.places.hosts import make_ready
from farmhand.places.table import PLACES

#: The place whose ledgers `farmhand list` reads.
FARM = PLACE_NAMES[0]


@verb(
    "batch",
    *(
        "place",
        "spot",
        "model",
        "system",
        "schema",
        "engine",
        "tools",
        "network",
        "timeout_s",
        "max_tokens",
        "labels",
        "work_class",
        "priority",
        "economy",
        "key_source",
        "pot",
        "project_dir",
        "when_spent",
        "confirm_usd",
        "prices_file",
    ),
    json_help="Print one JSON object at the end, and no progress.",
    epilog="Exit status: 0 all done, 1 a task failed or was cancelled, 2 usage (nothing was sent), 3 not configured, "
    "4 no farm host answers, 5 refused by policy or budget, 130 stopped by Ctrl-C. After 3, 4, 5 and 130 the same "
    "command goes on; after 1 with --retry-failed.",
)
@click.argument("inputs", nargs=-1, required=True, metavar="IN")
@click.option(
    "--out",
    metavar="FILE",
    help="Where results go as they come: JSON Lines, or a table for .csv and .tsv.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "jsonl", "csv", "files", "files-from", *OTHERS]),
    default="auto",
    help="auto (default): csv for .csv and .tsv, else what the first line is. files: IN are text files, directories "
    "or patterns; files-from: IN is a list of files. openai, anthropic: batch files of these, and FILE is theirs too.",
)
@click.option("--files", is_flag=True, help="The same as --format files.")
@click.option(
    "--template", metavar="FILE|TEXT", help="The prompt, with {column} in it; of files {path}, {name} and {text}."
)
@click.option(
    "--keep",
    multiple=True,
    metavar="COL[,COL…]",
    help="Columns of IN that come back with each result; '' for none. Default: those of a CSV row, up to 4 KB.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="NAME",
    help="A field, such as temperature, to take out of each request of --format openai or anthropic.",
)
@click.option("--ordered", is_flag=True, help="Write results in the input's order.")
@click.option(
    "--retry-failed", is_flag=True, help="Run again what failed or was cancelled, and leave one line per task in FILE."
)
@click.option("--restart", is_flag=True, help="Forget FILE, an output of this command, and start from the beginning.")
@click.option("--batch", metavar="BATCH", help="The batch's name; by default a new one after IN, kept beside FILE.")
@click.option("--dry-run", is_flag=True, help="Check IN, say what it may cost, here and in other ways, and end.")
@click.option("--yes", is_flag=True, help="Begin without a question, whatever it may cost.")
@click.option("--max-usd", type=MAX_USD, metavar="X", help="What all of it may cost.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="How many tasks run at once in all.")
@click.option("--hosts", default="farm", metavar="PATTERN", help="Ansible's pattern of hosts; farm by default.")
@click.option("-i", "--inventory", metavar="PATH", help="The inventory, if it is not the checkout's.")
@click.option(
    "--shard",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="N",
    help="Tasks in each container of aws-batch. Default: about ten minutes' work (500, or 20 with tools).",
)
@click.option("--detach", is_flag=True, help="End as soon as aws-batch has it all; the same command collects it later.")
@click.option(
    "--patience", "patience_s", type=DURATION, metavar="TIME", help="How long to wait while no farm host answers."
)
def command(
    conf: Settings,
    *,
    as_json: bool,
    inputs: tuple[str, ...],
    out: str | None,
    form: str,
    files: bool,
    template: str | None,
    keep: tuple[str, ...],
    drop: tuple[str, ...],
    ordered: bool,
    retry_failed: bool,
    restart: bool,
    batch: str | None,
    dry_run: bool,
    yes: bool,
    max_usd: float | None,
    concurrency: int | None,
    hosts: str,
    inventory: str | None,
    shard: int,
    detach: bool,
    **task: Any,
) -> VerbResult:
    """Run every task of IN on the farm hosts, or at another place, and write the results to FILE.

    IN is JSON Lines: a task (an object with at least prompt) or a prompt (a string) a line; - is stdin. With --template
    it is a table, as CSV or JSON Lines, or with --files a list of text files. It may be a batch file for the API of
    OpenAI or of Anthropic; FILE is then in their form. It is checked as a whole before anything is sent. What is done
    is kept beside FILE (FILE.farmhand), so that the same command goes on where it was stopped.
    """
    if inventory and "," not in inventory:
        # Ansible runs in the checkout, so a path must be absolute. With a comma it is a list of hosts, not a path.
        inventory = str(Path(inventory).resolve())
    in_aws = conf.place in AWS_PLACES
    bending = Bending.of(conf, once=in_aws)
    if in_aws and on_command_line("when_spent") and ECONOMY in (by_class(conf.when_spent) or {}).values():
        raise UsageError("--when-spent economy is not for containers on AWS", hint="haiku is; or leave --place out")
    if (shard or detach or on_command_line("spot")) and not in_aws:
        raise UsageError(f"{'--shard' if shard else '--detach' if detach else '--spot'} is for --place aws-batch")
    if restart and retry_failed:
        raise UsageError("--restart runs all of it, and --retry-failed what failed", hint="leave one of them out")
    if out is None and not dry_run:
        raise UsageError("--out FILE is missing", hint="name the file for the results, or give --dry-run")
    project = Path() if in_aws or dry_run else find_project(conf.project_dir, Path.cwd())
    progress = ProgressDisplay()
    where = PlaceSettings(
        project_dir=project,
        inventory=inventory,
        pattern=hosts,
        conf=conf,
        shard=shard,
        spot=conf.spot,
        bends=bending is not None,
        say=progress.say,
    )
    if batch is not None and not TASK_ID.fullmatch(as_name(batch, "--batch")):
        raise UsageError(f"--batch {batch!r:.80} does not match {TASK_ID.pattern}")
    given = defaults(conf, task)
    forced = conf.model if on_command_line("model") else ""
    form, unwanted = "files" if files else form, as_names(drop, "--drop")
    tasks, about = source(inputs, form, template, given, columns(keep), model=forced, drop=unwanted)
    called = inputs[0] if inputs[0] != "-" else out or ""
    plan = BatchPlan(tasks, batch or "", about | {"defaults": given, "ordered": ordered}, called)
    limits = WorkerLimits(
        max_usd=max_usd,
        concurrency=concurrency,
        patience_s=conf.patience_s,
        economy=bool(given.get("economy")),
        bending=bending,
    )
    if in_aws and limits.economy:
        raise UsageError("--economy needs no containers", hint="leave --place out")
    # AWS is asked for its environment here, before anything is made. Containers here wait for the input to be checked.
    place = None if conf.place == docker.NAME or dry_run else PLACES[conf.place](where)
    try:
        with ExitStack() as stack:
            if out is None or (dry_run and restart):
                out = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "out")
            journal = stack.enter_context(closing(open_journal(Path(out), inputs, restart=restart)))
            # In AWS the key is there already.
            with waits_for("reading the input"):
                key = fill_journal(plan, journal, conf, needs_key=not in_aws and not dry_run)
            refuse_pointless(limits, journal, retry_failed=retry_failed)
            if tasks.left_out:
                fields = ", ".join(f"{name} ({counted(n, 'line')})" for name, n in tasks.left_out.items())
                note(f"left out, as it changes no answer here: {fields}")
            if dry_run or shown_to_people(as_json) or (conf.confirm_usd and not yes):
                states = _open(retry_failed)
                try:
                    with waits_for("counting tokens"):
                        found = batch_price.look(journal, states, conf, own_key(key, conf.pot))
                    if dry_run:
                        line = batch_price.in_one_line(found, max_usd)
                        return VerbResult(batch_price.as_document(found, max_usd), line)
                    if found.tasks and not as_json:
                        note(f"{journal.about('batch')}: {batch_price.in_one_line(found, max_usd)}")
                    if found.tasks and conf.confirm_usd and not yes:
                        batch_price.confirm(found, conf.confirm_usd, max_usd)
                except BaseException:
                    journal.abandon()
                    raise
                finally:
                    if dry_run:
                        journal.abandon()
            if place is None:
                make_ready(conf, note)
                place = PLACES[conf.place](where)
            with journal.transaction():
                if limits.bending is not None:
                    journal.note("bends", "yes")
                if retry_failed:
                    journal.retry_failed()
            with closing(OutputFile(Path(out), journal, ordered=ordered)) as output:
                book = BatchLedger(journal, output)
                about = {"out": out, "as_json": as_json, "detach": detach}
                with telemetry.batch_span(conf, book, progress.say) as trace:
                    return farm_out(book, place, limits, key, progress, trace, **about)
    except InvalidInput as error:
        for line in error.lines:
            note(line)
        raise


def columns(keep: tuple[str, ...]) -> list[str] | None:
    """Return the columns that --keep names, separated by commas; in quotes one may have a comma. None: not given."""
    return [name.strip() for row in csv.reader(keep) for name in row if name.strip()] if keep else None


def shown_to_people(as_json: bool) -> bool:
    """Return whether stderr is a terminal and progress is shown there."""
    return not as_json and sys.stderr is not None and sys.stderr.isatty()


def on_command_line(option: str) -> bool:
    """Return whether the option is on the command line; the setting alone says nothing of this batch."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _open(retry_failed: bool) -> tuple[int, ...]:
    """Return the states of the lines that this command runs."""
    return (WAITING, LEASED, FAILED, CANCELLED) if retry_failed else (WAITING, LEASED)


def refuse_pointless(limits: WorkerLimits, journal: Journal, *, retry_failed: bool) -> None:
    """Raise UsageError for a --when-spent by which no task could ever go on at a lower price."""
    if limits.bending is None or not on_command_line("when_spent"):
        return
    if why := limits.bending.refusal(journal.bodies(_open(retry_failed))):
        journal.abandon()
        raise UsageError(f"--when-spent can make none of the tasks cheaper: {why}", hint="leave it out")


def defaults(conf: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Return the default fields of the batch's tasks, from the options `given`. Raises UsageError."""
    fields = task_fields(given, conf) | {"timeout_s": conf.timeout_s}
    return {name: value for name, value in fields.items() if value}


def farm_out(
    book: BatchLedger,
    place: Place,
    limits: WorkerLimits,
    key: Credential,
    progress: ProgressDisplay,
    trace: TraceContext | None = None,
    *,
    out: str,
    as_json: bool,
    detach: bool,
) -> VerbResult:
    """Run the unfinished tasks and return the summary. With `detach`, do not wait for a place that goes on alone."""
    totals, before = book.totals, book.totals.cost_pico
    drawn = shown_to_people(as_json) and not colour.is_dumb()
    mode = "quiet" if as_json else "bar" if drawn else "lines"
    progress.begin(mode, totals.as_dict()["total"])
    coordinator = Coordinator(book, place, key, limits, progress.say, trace)
    began = time.monotonic()
    signals: list[int] = []

    def show() -> None:
        progress.show(totals.as_dict() | {"waiting": coordinator.waiting_for})
        if detach and isinstance(place, LastingPlace) and place.submitted:
            coordinator.end()

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        if len(signals) == 1:
            progress.say("stopping: what has not started is taken back, what runs has a few seconds (again: at once)")
            coordinator.stop()
        else:
            coordinator.kill()
            if isinstance(place, LastingPlace):
                place.terminate()

    finished_before = not totals.left
    with closing(progress):
        if totals.left:
            with caught(on_signal):
                coordinator.run(show)
            show()
    seconds = time.monotonic() - began
    whole = totals.as_dict() | {"batch": book.batch, "out": out, "left": totals.left}
    whole |= {"before": finished_before, "finished_at": book.finished_at()}
    whole |= {"cost_now_usd": (totals.cost_pico - before) / PICO_PER_USD}
    whole["bent"] = book.journal.bent.counts()
    whole["failures"] = [cause.as_dict() for cause in causes(book.journal)]
    whole["cut_off"] = cut_short(book.journal)
    whole |= {"seconds": round(seconds, 3), "per_s": round(totals.finished_now / seconds, 2) if seconds else 0.0}
    del whole["succeeded"]
    if isinstance(place, LastingPlace):
        whole["place"] = place.account()
    error: FarmhandError | None = coordinator.error
    if error is not None:
        whole |= render.error_object(error)
    status, notes = 1 if totals.failed or totals.cancelled else 0, []
    if error is not None and totals.left:
        status, notes = error.exit_code, [str(error)]
    elif signals and totals.left:
        status, notes = 128 + signals[0], ["stopped; give the same command again: it goes on from here"]
    elif detach and totals.left:
        tasks = counted(totals.left, "task goes", "tasks go")
        notes = [f"{tasks} on in AWS; the same command collects them"]
    return VerbResult(
        whole, summary(whole), status, [*notes, *why_failed(whole, listed=place.name == FARM), *not_whole(whole)]
    )
