"""The command `jada-agent`. Each verb imports only what it needs, so that `bridge` starts fast."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from farmhand import __version__
from farmhand.agent.bridge import LINGER_S, SOCKET, bridge
from farmhand.core.errors import FarmhandError

DEFAULT_CONFIG = Path("/etc/jada-agent/config.toml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jada-agent", description="The Farmhand daemon of a farm host.")
    parser.add_argument("--version", action="version", version=f"jada-agent {__version__}")
    verb = parser.add_subparsers(dest="verb", required=True).add_parser
    default = "default: %(default)s"
    socket = argparse.ArgumentParser(add_help=False)
    socket.add_argument("--socket", default=SOCKET, metavar="PATH", help=default)
    serve = verb("serve", help="run the daemon")
    serve.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=default)
    check = verb("check-config", help="check a settings file; exit 3 with one line where it is wrong")
    check.add_argument("config", type=Path, nargs="?", default=DEFAULT_CONFIG, metavar="FILE", help=default)
    prices = verb("check-prices", help="check a file with prices; exit 3 with one line where it is wrong")
    prices.add_argument("prices", type=Path, metavar="FILE")
    join = verb("bridge", parents=[socket], help="join stdin and stdout to the daemon's socket")
    patience = f"once stdin has ended, how long to wait for a silent daemon; {default}"
    join.add_argument("--linger", type=float, default=LINGER_S, metavar="SECONDS", help=patience)
    metrics = verb("metrics", parents=[socket], help="print the figures for Prometheus; exit 4 if there are none")
    metrics.add_argument("--out", type=Path, metavar="FILE", help="put them there instead, or remove it")
    verb("turn", parents=[socket], help="play one turn of a batch: JSON on stdin, JSON on stdout")
    verb("task", parents=[socket], help="run one task: JSON on stdin, JSON on stdout")
    return parser


def _serve(config: Path) -> None:
    import asyncio
    import logging

    from farmhand.agent.config import load
    from farmhand.agent.daemon import serve
    from farmhand.core import systemd

    settings = load(config)
    systemd.keep_memory_private()
    # The journal adds the time. A message never contains a header, a body or a key.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # The HTTP server would log a malformed request line by line, and one of the lines could contain the key.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    asyncio.run(serve(settings))


def _run(options: argparse.Namespace) -> int:
    match options.verb:
        case "serve":
            _serve(options.config)
        case "check-config":
            from farmhand.agent.config import load

            load(options.config)
        case "check-prices":
            from farmhand.core.prices import price_table

            price_table(options.prices)
        case "metrics":
            from farmhand.wire.metrics import main as metrics

            return metrics(options.socket, options.out)
        case "turn":
            from farmhand.wire.turn import main as turn

            return turn(options.socket, sys.stdin.buffer, sys.stdout.buffer)
        case "task":
            from farmhand.wire.task_call import main as task

            return task(options.socket, sys.stdin.buffer, sys.stdout.buffer)
        case _:
            return bridge(options.socket, options.linger)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Print a FarmhandError as one line on stderr and return its exit status."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except FarmhandError as error:
        print(f"jada-agent: {error}", file=sys.stderr)  # noqa: T201  (a command's own stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
