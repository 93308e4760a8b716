"""`farmhand cloud verify`: what was never verified on real AWS, looked at in your account."""

from __future__ import annotations

import time
from collections import Counter

import click

from farmhand import __version__
from farmhand.aws.client import Aws
from farmhand.aws.places.live_check import LIMIT_S, MOST_USD, ROWS, LiveCheck
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.say import ask, note, one_line
from farmhand.cli.signals import Stoppable, Stopped
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import FarmhandError
from farmhand.core.readable import dollars
from farmhand.core.settings import Settings
from farmhand.core.shard import VerifyRow


@cloud_verb(
    "verify",
    epilog="Exit status: 0 nothing failed, 1 a row failed, 3 the place is not there, 5 it may cost too much.",
)
@click.option("--live", is_flag=True, help="Do it. Without this it only says what it would do, and what that costs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(conf: Settings, *, as_json: bool, live: bool, yes: bool) -> VerbResult:
    """Check in your account what could not be checked without one (docs/aws.md), and print a report to attach.

    It runs one task and one job that look at themselves. No task of yours runs, and no tokens are paid for.
    """
    aws = Aws(conf)
    check = LiveCheck(conf=conf, aws=aws, say=note)
    most = round(check.most_usd(), 4)
    if not live:
        lines = [f"{name:<24}  {about}" for name, about in ROWS.items()]
        lines.append(f"a task and a job, {LIMIT_S / 60:g} min at most: less than {dollars(most)}; --live does it")
        return VerbResult({"rows": [], "checks": ROWS, "most_usd": str(most), "status": "planned"}, "\n".join(lines))
    limit = f"it costs less than {dollars(most)} (its own limit is {dollars(MOST_USD)})"
    note(f"{aws.names.base} in region {aws.region}: {limit}")
    if not yes:
        ask("start one task and one job?")
    began = time.time()
    rows = _checked(check)
    counts = Counter(row.verdict for row in rows)
    document = {
        "rows": [{"name": r.name, "about": ROWS[r.name], "verdict": r.verdict, "seen": r.seen} for r in rows],
        "most_usd": str(most),
        "status": "failed" if counts["failed"] else "passed",
        **{"farmhand": __version__, "region": aws.region, "image": check.image.rpartition("/")[2], "id": check.id},
        **{"at": round(began), "seconds": round(time.time() - began)},
    }
    lines = [f"{row.verdict:<9}  {row.name:<24}  {one_line(row.seen)}" for row in rows]
    sums = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("passed", "failed", "not known"))
    lines.append(f"{sums}: farmhand {__version__}, {aws.region}, {time.strftime('%Y-%m-%d', time.gmtime(began))}")
    return VerbResult(document, "\n".join(lines), 1 if counts["failed"] else 0)


def _checked(check: LiveCheck) -> list[VerifyRow]:
    """Run the check. What it started is ended, also when a signal or an error stops it."""
    with Stoppable() as stoppable:
        try:
            return check.run()
        except Stopped:
            stoppable.hold()
            note("stopping the task and the job")
            raise
        finally:
            try:
                check.stop()
            except FarmhandError as error:
                note(f"it may still run: {error}")
