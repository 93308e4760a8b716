"""`python -m tests.support.fakeaws`: serve until SIGTERM or SIGINT. The first line of output is the address."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading

from tests.support import garbage
from tests.support.fakeaws.options import OPTIONS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fakeaws", description="A stand-in for AWS on this machine.")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="0 (the default) is a free one")
    parser.add_argument("--host", default=OPTIONS.host, metavar="ADDRESS", help="where it listens")
    parser.add_argument("--region", default=OPTIONS.region)
    parser.add_argument("--docker", action="store_true", help="run ECS tasks and Batch jobs in containers (needs root)")
    parser.add_argument("--at-once", type=int, default=OPTIONS.at_once, metavar="N", help="tasks at the same time")
    parser.add_argument("--spot-s", type=float, default=OPTIONS.spot_s, metavar="S", help="from SIGTERM to SIGKILL")
    parser.add_argument("--reach", type=int, action="append", default=[], metavar="PORT", help="what tasks reach here")
    parser.add_argument("--registry", default="", metavar="HOST:PORT", help="the registry that stands for ECR")
    return parser.parse_args()


def _missing() -> str:
    """What containers need and this machine lacks."""
    if os.geteuid() != 0:
        return "only root may enter the network of a container"
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["docker does not answer"])[-1] if done.returncode else ""


def main() -> int:
    args = _arguments()
    for name in ("region", "docker", "at_once", "spot_s", "registry"):
        setattr(OPTIONS, name, getattr(args, name))
    OPTIONS.host = args.host
    OPTIONS.reach = set(args.reach)
    if args.docker and (missing := _missing()):
        print(f"fakeaws: --docker: {missing}", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    from tests.support.fakeaws.server import Server  # moto is slow, and reads variables that the options set

    try:
        server = Server(args.port)
    except OSError as error:
        print(f"fakeaws: cannot listen on port {args.port}: {error}", file=sys.stderr)
        return 1
    garbage.seldom()
    garbage.leave_alone()
    with server:
        print(f"listening on {OPTIONS.url}", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking moto's modules down takes a second, and there is nothing to save
