"""`python -m tests.support.messages_api`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.support.messages_api.batch import Plan
from tests.support.messages_api.limits import Limits
from tests.support.messages_api.server import MessagesApi
from tests.support.messages_api.state import DEFAULT_KEY

T = TypeVar("T")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="messages_api", description="A loopback stand-in for the Messages API.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT|unix:PATH", help="default: %(default)s")
    parser.add_argument("--also", action="append", default=[], metavar="HOST:PORT", help="listen there as well")
    parser.add_argument(
        "--keys-file", type=Path, metavar="FILE", help="accepted keys, one a line; read again on change"
    )
    parser.add_argument("--latency-ms", type=float, default=0, metavar="N", help="wait before each answer")
    parser.add_argument("--event-ms", type=float, default=0, metavar="N", help="wait between the events of a stream")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append what is received, as JSONL")
    parser.add_argument("--limits", type=_json_of(Limits), metavar="JSON", help="enforce: '{\"requests\": 50}'")
    parser.add_argument(
        "--batch-plan", type=_json_of(Plan), metavar="JSON", help="how batches go on: '{\"after_ms\": 2000}'"
    )
    return parser.parse_args()


def _json_of(type_: type[T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        try:
            return msgspec.json.decode(text, type=type_)
        except msgspec.DecodeError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


async def _serve(args: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api = MessagesApi(
        args.listen,
        *args.also,
        keys=() if args.keys_file else (DEFAULT_KEY,),
        keys_file=args.keys_file,
        latency_ms=args.latency_ms,
        event_ms=args.event_ms,
        log_file=args.log,
        limits=args.limits,
        batch_plan=args.batch_plan,
    )
    try:
        await api.start()
    except (OSError, ValueError) as error:
        print(f"messages_api: cannot listen on {args.listen}: {error}", file=sys.stderr)
        return 1
    print(f"listening on {api.url}", flush=True)
    await stop.wait()
    await api.stop()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve(_arguments())))
