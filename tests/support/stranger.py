"""What another process of the machine gets of a running gateway: `python3 -I stranger.py PORT PID FILE…`.

It needs nothing of the project, and prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def main(port: str, pid: str, *files: str) -> dict[str, object]:
    """What is read of files and of the process, and the status of a turn without the token and with a guess."""
    secret = [*files, *(f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps", "io"))]
    headers: tuple[dict[str, str], ...] = ({}, {"Authorization": "Bearer x"}, {"X-Api-Key": "x"})
    return {"read": [path for path in secret if _read(path)], "turns": [_turn(port, one) for one in headers]}


def _read(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        return not isinstance(error, PermissionError)
    return True


def _turn(port: str, headers: dict[str, str]) -> int:
    body = json.dumps({"model": "farmhand/chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"Content-Type": "application/json"} | headers
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(asked) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
