"""Answers of the API as they have really been seen, one row a case, and what has to become of a task that gets one.

Each `source` is where the like was reported: the repository, and what the report is about. `body` is what comes after
the head; the rows are built from the parts below, so that each differs from a plain answer in what it is about.
"""

from __future__ import annotations

from tests.support.answers.broken import BROKEN
from tests.support.answers.events import EVENTS
from tests.support.answers.figures import FIGURES
from tests.support.answers.framing import FRAMING
from tests.support.answers.parts import SCHEMA, TOKENS, Case
from tests.support.answers.structured import STRUCTURED

CASES = (*FRAMING, *EVENTS, *FIGURES, *BROKEN, *STRUCTURED)

__all__ = ["CASES", "SCHEMA", "TOKENS", "Case"]
