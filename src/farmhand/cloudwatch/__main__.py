"""`python -m farmhand.cloudwatch`: push once. systemd runs it every minute (jada-cloudwatch.timer)."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from farmhand.cloudwatch.figures import Labels
from farmhand.cloudwatch.push import Pusher
from farmhand.wire.client import Client
from farmhand.wire.transport import AGENT_SOCKET, UnixTransport

#: Seconds. One attempt: botocore would repeat a call whose answer it did not see, and CloudWatch adds what it gets.
_CONNECT_S, _READ_S, _AGENT_S = 5, 20, 10.0


def main(arguments: list[str] | None = None) -> int:
    """Push once and print a line for what is wrong. Return 0, or 1 if CloudWatch has not taken all."""
    parser = argparse.ArgumentParser(prog="farmhand.cloudwatch", description=__doc__)
    for name in ("environment", "host", "region", "state-dir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--socket", default=AGENT_SOCKET)
    parser.add_argument("--endpoint-url", default=None)
    given = parser.parse_args(arguments)
    with Client(UnixTransport(given.socket, connect_timeout_s=_AGENT_S)) as client:
        labels = Labels(given.environment, given.host)
        connect = partial(_cloudwatch, given.region, given.endpoint_url)
        pusher = Pusher(client, connect, labels, Path(given.state_dir))

        def stop(*_: object) -> None:
            pusher.stopping = True

        # A call that is under way is brought to its end.
        signal.signal(signal.SIGTERM, stop)
        lines = pusher.run()
    for line in filter(None, lines):
        sys.stderr.write(f"{line}\n")
    return 1 if lines[-1] else 0


def _cloudwatch(region: str, endpoint_url: str | None) -> Any:
    """Return a client of CloudWatch that makes one attempt."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        user_agent_extra="farmhand-cloudwatch",
    )
    return boto3.Session(region_name=region).client("cloudwatch", endpoint_url=endpoint_url, config=config)


if __name__ == "__main__":
    sys.exit(main())
