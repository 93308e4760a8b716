"""One push: read the agent, call PutMetricData, write down how far it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farmhand.cloudwatch.figures import NAMESPACE, Labels, is_too_old, of_charges, of_moment, risen
from farmhand.cloudwatch.marks import Mark, Marks
from farmhand.cloudwatch.reading import PAGE, AgentSample, ChargedRequest, last_charge, read_charges, read_sample
from farmhand.core import money
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured
from farmhand.core.keys import redact
from farmhand.core.pushed import PushNote, read_note, write_note
from farmhand.wire.client import Client

#: The most calls of a push; the rest comes with the next one. Each has up to 300 charges.
MOST_CALLS = 100
#: Errors of botocore after which it is certain that CloudWatch has taken nothing: it said so, or never got the request.
_TOOK_NOTHING = frozenset(
    {
        *("ClientError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        *("MetadataRetrievalError", "ParamValidationError", "NoRegionError", "InvalidRegionError", "ConfigParseError"),
        *("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"),
    }
)

#: Makes a client of CloudWatch, which must not try again by itself.
Connect = Callable[[], Any]


class Unanswered(FarmUnreachable):
    """Nobody knows whether CloudWatch has taken the data of a call."""

    code = "unanswered"


class Pusher:
    """Pushes what one agent says. `directory` keeps how far it came (private) and the note (for everybody)."""

    def __init__(self, client: Client, connect: Connect, labels: Labels, directory: Path) -> None:
        self._client = client
        self._connect = connect
        self._cloudwatch: Any = None
        self._labels = labels
        self._note = directory / "note.json"
        self._marks_file = directory / "marks.json"
        #: What is older than CloudWatch takes, in pico-dollars.
        self._too_old_pico = 0
        #: Set to stop after the call that is under way.
        self.stopping = False

    def run(self, at: float | None = None) -> list[str]:
        """Push once, as of the time `at` (Unix seconds). Return lines for the journal: what is missing, in the end why.

        The last line is also the note's problem, and "" if all went well. Never raise FarmhandError.
        """
        at = time.time() if at is None else at
        lines: list[str] = []
        problem = ""
        try:
            self._run(at, lines)
        except FarmhandError as error:
            problem = redact(" ".join(str(error).split()))
        if self._too_old_pico:
            usd = money.plain(self._too_old_pico)
            lines.append(f"US$ {usd} of the ledger are of more than two weeks ago: CloudWatch does not take them")
        last = read_note(str(self._note)).at if problem else at
        try:
            write_note(self._note, PushNote(last, problem))
        except OSError as error:
            problem = problem or f"{self._note} cannot be written: {error.strerror}"
        return [*lines, problem]

    def _run(self, at: float, lines: list[str]) -> None:
        marks = Marks(self._marks_file)
        if marks.done is not None and marks.doubtful_pico is not None:
            lines.append(_doubt(marks.doubtful_pico))
            marks.begin(marks.done)
        sample = read_sample(self._client)
        if marks.done is None:
            # What came before is not told: nobody knows whether it was.
            marks.begin(Mark(sample.ledger, last_charge(self._client), sample.started, sample.errors))
        for number in range(MOST_CALLS):
            if not self._page(marks, sample, at, lines, first=number == 0) or self.stopping:
                return

    def _page(self, marks: Marks, sample: AgentSample, at: float, lines: list[str], *, first: bool) -> bool:
        """Push the next charges, and in the first call all else. Return whether there may be more."""
        assert marks.done is not None  # noqa: S101  (_run has begun it)
        # Another ledger is a new one: its numbers begin again.
        after = marks.done.charge if marks.done.ledger == sample.ledger else 0
        charges = read_charges(self._client, after)
        data = of_charges(self._labels, charges, at)
        if first:
            data += of_moment(self._labels, sample, risen(marks.done, sample), at)
        mark = Mark(sample.ledger, charges[-1].charge_id if charges else after, sample.started, sample.errors)
        if data:
            self._call(marks, mark, charges, data, lines)
        else:  # only charges that are too old
            marks.begin(mark)
        self._too_old_pico += sum(charge.pico for charge in charges if is_too_old(charge, at))
        return len(charges) == PAGE

    def _call(
        self, marks: Marks, mark: Mark, charges: list[ChargedRequest], data: list[dict[str, Any]], lines: list[str]
    ) -> None:
        pico = sum(charge.pico for charge in charges)
        if self._cloudwatch is None:
            with _explained():
                self._cloudwatch = self._connect()
        marks.calling(mark, pico)
        try:
            with _explained():
                self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
        except Unanswered:
            marks.begin(mark)
            lines.append(_doubt(pico))
            raise
        except FarmUnreachable:
            marks.refused()
            raise
        marks.begin(mark)


def _doubt(pico: int) -> str:
    usd = money.plain(pico)
    return f"a call to CloudWatch broke off: US$ {usd} of the ledger may be missing there, and are not sent again"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of boto3 inside into Unanswered, or FarmUnreachable if it is certain that nothing was taken."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise NotConfigured(f"there is no {error.name} here", hint="site.yml installs it") from None
    except Exception as error:
        if not type(error).__module__.startswith(("botocore", "boto3", "urllib3")):
            raise
        said = f"CloudWatch: {_code(error)}: {' '.join(str(error).split())[:300]}"
        known = {kind.__name__ for kind in type(error).__mro__} & _TOOK_NOTHING
        raise (FarmUnreachable if known else Unanswered)(said) from None


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    return code or type(error).__name__
