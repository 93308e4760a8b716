"""`farmhand batch`: run a file of tasks on all farm hosts and write a file of results. A stopped batch can resume."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from farmhand.batch.accounting import BatchLedger
from farmhand.batch.begin import BatchPlan, InvalidInput, fill_journal, open_journal
from farmhand.batch.coordinator import Coordinator
from farmhand.batch.inputs import source
from farmhand.batch.output import OutputFile
from farmhand.batch.worker_state import WorkerLimits
from farmhand.cli import colour, render
from farmhand.cli.amount import MAX_USD
from farmhand.cli.say import note, printable
from farmhand.cli.signals import caught
from farmhand.cli.task_options import task_fields
from farmhand.cli.verb import VerbResult, verb
from farmhand.core.decoding import as_name
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.settings import AWS_PLACES, Settings
from farmhand.core.task import TASK_ID
from farmhand.places import docker
from farmhand.places.base import LastingPlace, Place, PlaceSettings
from farmhand.places.checkout import find_project
from farmhand.places.hosts import make_ready
from farmhand.places.table import PLACES

#: The least time between two plain lines. Seconds.
LINE_EVERY_S = 5.0


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
@click.option("--batch", metavar="BATCH", help="The batch's name; by default a new one, kept beside FILE.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Free text that comes back; repeatable.")
@click.option("--work-class", metavar="CLASS", help="What kind of work it is, for the reports.")
@click.option("--priority", type=int, metavar="N", help="Higher runs first; 0 by default.")
@click.option("--economy", is_flag=True, help="Half the price through Message Batches; answers may take a day.")
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
    shard: int,
    detach: bool,
    **task: Any,
) -> VerbResult:
    """Run every task of IN on the farm hosts, or at another place, and write the results to FILE.

    IN is JSON Lines: a task (an object with at least prompt) or a prompt (a string) a line; - is stdin. With --template
    it is a table, as CSV or JSON Lines, or with --files a list of text files. It is checked as a whole before anything
    is sent. What is done is kept beside FILE (FILE.farmhand), so that the same command goes on where it was stopped.
    """
    if inventory and "," not in inventory:
        # Ansible runs in the checkout, so a path must be absolute. With a comma it is a list of hosts, not a path.
        inventory = str(Path(inventory).resolve())
    in_aws = conf.place in AWS_PLACES
    if (shard or detach or spot_given()) and not in_aws:
        raise UsageError(f"{'--shard' if shard else '--detach' if detach else '--spot'} is for --place aws-batch")
    project = Path() if in_aws else find_project(conf.project_dir, Path.cwd())
    progress = ProgressDisplay()
    where = PlaceSettings(
        project_dir=project,
        inventory=inventory,
        pattern=hosts,
        conf=conf,
        shard=shard,
        spot=conf.spot,
        say=progress.say,
    )
    if batch is not None and not TASK_ID.fullmatch(as_name(batch, "--batch")):
        raise UsageError(f"--batch {batch!r:.80} does not match {TASK_ID.pattern}")
    given = defaults(conf, task)
    tasks, about = source(inputs, "files" if files else form, template, given)
    plan = BatchPlan(tasks, batch or "", about | {"defaults": given, "ordered": ordered})
    limits = WorkerLimits(
        max_usd=max_usd, concurrency=concurrency, patience_s=conf.patience_s, economy=bool(given.get("economy"))
    )
    if in_aws and limits.economy:
        raise UsageError("--economy needs no containers", hint="leave --place out")
    # AWS is asked for its environment here, before anything is made. Containers here wait for the input to be checked.
    place = None if conf.place == docker.NAME else PLACES[conf.place](where)
    try:
        with closing(open_journal(Path(out), inputs, restart=restart)) as journal:
            # In AWS the key is there already.
            key = fill_journal(plan, journal, conf.key_source, needs_key=not in_aws)
            if place is None:
                make_ready(conf, note)
                place = PLACES[conf.place](where)
            if retry_failed:
                with journal.transaction():
                    journal.retry_failed()
            with closing(OutputFile(Path(out), journal, ordered=ordered)) as output:
                book = BatchLedger(journal, output)
                return farm_out(book, place, limits, key, progress, out=out, as_json=as_json, detach=detach)
    except InvalidInput as error:
        for line in error.lines:
            note(line)
        raise


def spot_given() -> bool:
    """Return whether --spot or --no-spot is on the command line; the setting alone says nothing of this batch."""
    return click.get_current_context().get_parameter_source("spot") is click.core.ParameterSource.COMMANDLINE


def defaults(conf: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """Return the default fields of the batch's tasks, from the options `given`. Raises UsageError."""
    if any("=" not in label for label in given["labels"]):
        raise UsageError("--label is not of the form NAME=VALUE")
    fields = task_fields(given, conf) | {
        "timeout_s": conf.timeout_s,
        "labels": dict(as_name(label, "--label").partition("=")[::2] for label in given["labels"]),
        "work_class": given["work_class"] and as_name(given["work_class"], "--work-class"),
        "priority": given["priority"],
        "economy": given["economy"],
    }
    return {name: value for name, value in fields.items() if value}


def farm_out(
    book: BatchLedger,
    place: Place,
    limits: WorkerLimits,
    key: str,
    progress: ProgressDisplay,
    *,
    out: str,
    as_json: bool,
    detach: bool,
) -> VerbResult:
    """Run the unfinished tasks and return the summary. With `detach`, do not wait for a place that goes on alone."""
    totals = book.totals
    drawn = sys.stderr is not None and sys.stderr.isatty() and not colour.is_dumb()
    mode = "quiet" if as_json else "bar" if drawn else "lines"
    progress.begin(mode, totals.as_dict()["total"])
    coordinator = Coordinator(book, place, key, limits, progress.say)
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

    with closing(progress):
        if totals.left:
            with caught(on_signal):
                coordinator.run(show)
            show()
    seconds = time.monotonic() - began
    whole = totals.as_dict() | {"batch": book.batch, "out": out, "left": totals.left}
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
        notes = [f"{totals.left} tasks go on in AWS; the same command collects them"]
    return VerbResult(whole, summary(whole), status, notes)


def dollars(usd: float | Decimal) -> str:
    """Format an amount with four decimals, or more if four would show almost nothing."""
    if usd and usd < 0.001:
        return f"${usd:.2g}" if usd < 1e-6 else f"${usd:.6f}"
    return f"${usd:.4f}"


def clock(seconds: float) -> str:
    """Format a remaining time: 42 s, 3:07, 1:02:09."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{whole % 60:02d}"


def summary(whole: dict[str, Any]) -> str:
    """Return the last line: counts, cost, time and rate."""
    left = f", {whole['left']} left" if whole["left"] else ""
    unpriced = f" ({whole['unpriced']} unpriced)" if whole["unpriced"] else ""
    parts = [
        f"{whole['total']} tasks: {whole['done']} done, {whole['failed']} failed, {whole['cancelled']} cancelled{left}",
        dollars(whole["cost_usd"]) + unpriced,
        f"{whole['uncertain']} requests may have cost something besides" if whole["uncertain"] else "",
        f"{whole['twice']} ran twice, {dollars(whole['twice_usd'])} of it" if whole["twice"] else "",
        _of_place(whole.get("place") or {}),
        f"{whole['seconds']:.1f} s",
        f"{whole['per_s']:.1f} tasks/s",
    ]
    return " · ".join(filter(None, parts))


def _of_place(place: dict[str, Any]) -> str:
    """Return what the place itself came to: containers, and what they cost."""
    if not place.get("attempts"):
        return ""
    again = sum(int(one["times"]) for one in place.get("retries") or [])
    retried = f", {again} of them started again" if again else ""
    return f"{place['containers']} containers{retried}, {dollars(Decimal(place['usd']))} for them"


class ProgressDisplay:
    """The batch's progress on stderr. `mode` is bar, lines or quiet: then it prints messages only."""

    def __init__(self, mode: str = "quiet", total: int = 0) -> None:
        self._shown = -1
        self._bar: Any = None
        self.begin(mode, total)

    def begin(self, mode: str, total: int) -> None:
        """Begin to show the progress of `total` tasks."""
        self.mode = mode
        self._began = self._line_at = time.monotonic()
        if mode == "bar":
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
            self._bar = Progress(*columns, console=colour.console(sys.stderr), transient=True)
            self._row = self._bar.add_task("batch", total=total, words="")
            self._bar.start()

    def words(self, now: dict[str, Any]) -> str:
        """Return the text beside the bar: failures, rate, cost, remaining time, and why the batch waits."""
        took = time.monotonic() - self._began
        rate = now["finished_now"] / took if took > 0 else 0.0
        left = now["total"] - _finished(now)
        parts = [
            f"{now['failed']} failed" if now["failed"] else "",
            f"{rate:.1f}/s",
            dollars(now["cost_usd"]),
            f"ETA {clock(left / rate)}" if rate and left else "",
            printable(str(now.get("waiting") or "")),
        ]
        return " · ".join(filter(None, parts))

    def show(self, now: dict[str, Any]) -> None:
        """Draw these figures: in the bar, or as a line if it is time for one and the count has changed."""
        finished = _finished(now)
        if self._bar is not None:
            self._bar.update(self._row, completed=finished, words=self.words(now))
        elif self.mode == "lines" and time.monotonic() - self._line_at >= LINE_EVERY_S and finished != self._shown:
            self._line_at, self._shown = time.monotonic(), finished
            print(f"{finished} of {now['total']} · {self.words(now)}", file=sys.stderr, flush=True)  # noqa: T201

    def say(self, text: str) -> None:
        """Print a message, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            note(text)

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()


def _finished(now: dict[str, Any]) -> int:
    return int(now["succeeded"] + now["failed"] + now["cancelled"])
