"""The work of `farmhand run`, which is `claude-cheap`: run one task. Only its answer goes to stdout.

Start-up time counts for every call, so what most calls do not need is imported where it is used: docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
from typing import Any, Self

from farmhand.cli import render
from farmhand.cli.arguments import RunOptions
from farmhand.core import settings
from farmhand.core.errors import FarmhandError
from farmhand.places import hosts
from farmhand.wire.transport import SshTransport


class EarlyConnection:
    """The connection to the first host, whose ssh is started early, while the rest is prepared.

    Errors are ignored here and reported when connecting. An ssh that was not used is ended on exit.
    """

    def __init__(self, conf: settings.Settings) -> None:
        self._host: hosts.Host | None = None
        self._early: SshTransport | None = None
        with contextlib.suppress(FarmhandError):
            self._host = hosts.candidates(hosts.load_hosts(conf.hosts_name), conf.host, conf.hosts_name)[0]
            self._early = self._host.transport(conf.connect_timeout_s)
            self._early.open_early()

    def to(self, host: hosts.Host, connect_timeout_s: float) -> SshTransport:
        """Return the transport to `host`, the early one if it leads there. Raises WireError."""
        if self._early is None or host != self._host:
            return host.transport(connect_timeout_s)
        self._early.connect_timeout_s = connect_timeout_s
        return self._early

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._early is not None:
            self._early.close_early()


def main(options: RunOptions) -> int:
    """Run the task that `options` describe and return the exit status."""
    with render.errors_as_json(options.as_json):
        flags = {name: value for name, value in options._asdict().items() if hasattr(settings.Settings, name)}
        conf = settings.load(options.config, **flags)
        # A prompt from stdin comes whenever its writer ends: no connection waits for that.
        task = _task(options, conf) if options.prompt is None or "-" in options.file else None
        with EarlyConnection(conf) as early:
            from farmhand.cli.carry import carry

            return carry(task or _task(options, conf), conf, early.to, as_json=options.as_json)


def _task(options: RunOptions, conf: settings.Settings) -> dict[str, Any]:
    from farmhand.cli.task_options import build_task

    return build_task(options, conf)
