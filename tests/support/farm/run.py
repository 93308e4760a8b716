"""Running programs: what they say is kept, and a failure is one line with the end of it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

Completed = subprocess.CompletedProcess[str]


class FarmError(Exception):
    """The farm could not be booted or removed; the message is for the user."""


def run(
    argv: Sequence[str],
    *,
    input: str | bytes | None = None,  # noqa: A002  # the name that subprocess gives it
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120.0,
) -> Completed:
    """Run `argv` to its end and keep both outputs, as text; bytes that are no UTF-8 show as \\x escapes."""
    raw = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    feed: dict[str, object] = {"stdin": subprocess.DEVNULL} if raw is None else {"input": raw}
    try:
        done = subprocess.run(argv, capture_output=True, env=env, cwd=cwd, timeout=timeout_s, check=False, **feed)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise FarmError(f"{argv[0]} {argv[1] if len(argv) > 1 else ''} did not end within {timeout_s:g} s") from None
    except FileNotFoundError:
        raise FarmError(f"{argv[0]} is missing: run `make demo` or `make e2e`, which install it") from None
    decoded = (raw_output.decode("utf-8", "backslashreplace") for raw_output in (done.stdout, done.stderr))
    return Completed(done.args, done.returncode, *decoded)


def check(argv: Sequence[str], *, input: str | bytes | None = None, timeout_s: float = 120.0) -> str:  # noqa: A002  # as in run
    """The output of `argv`. Raises FarmError with the last line it said where it fails."""
    done = run(argv, input=input, timeout_s=timeout_s)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise FarmError(f"{' '.join(argv[:3])} … failed with status {done.returncode}: {said}")
    return done.stdout
