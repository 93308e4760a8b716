"""Spans of tasks and of requests, sent to a collector of the operator's. Off by default.

OpenTelemetry's SDK is imported by `begin` alone, so where `otel_endpoint` is not set it costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farmhand.telemetry.spans import Tracing


def begin(
    endpoint: str, service: str, place: str, *, say: Callable[[str], None], ca_file: str = "", bulk: bool = False
) -> Tracing:
    """Return what makes the spans of this process; see `Tracing`.

    OTEL_* variables are for other programs. A wrong one would even make the import of the SDK fail.
    """
    hidden = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("OTEL_")}
    try:
        from farmhand.telemetry.spans import Tracing

        return Tracing(endpoint, service, place, say=say, ca_file=ca_file, bulk=bulk)
    finally:
        os.environ.update(hidden)
