"""Notifications of red checks to the operator: on the desktop, by mail, or to a webhook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

from farmhand.core.child import scrubbed
from farmhand.core.errors import FarmhandError, NotConfigured, UsageError

_TIMEOUT_S = 20.0
KINDS = "desktop, mail:ADDRESS, webhook:URL or webhook:FILE"
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?")


def check_way(way: str) -> str:
    """Return `way` if it is valid. Raises UsageError."""
    kind, _, rest = way.partition(":")
    if way == "desktop" or (kind == "mail" and _ADDRESS.fullmatch(rest)):
        return way
    if kind == "webhook" and rest.startswith(("https://", "http://", "/", "~/")):
        return way
    # A webhook's URL is a secret like a password, so it is not printed.
    shown = "what was given" if "/" in way else f"{way!r:.100}"
    raise UsageError(f"--notify: {shown} is not one of {KINDS}")


def notify(way: str, title: str, lines: list[str]) -> None:
    """Send `title` and `lines` by `way`: `desktop`, `mail:ADDRESS`, `webhook:URL` or `webhook:FILE`.

    FILE contains the URL, which is a secret like a password. Raises FarmhandError.
    """
    kind, _, rest = check_way(way).partition(":")
    body = "\n".join(lines)
    if kind == "desktop":
        _run(["notify-send", "--app-name=farmhand", "--urgency=critical", title, body], "", "install libnotify-bin")
    elif kind == "mail":
        _run(["mail", "-s", title, rest], body + "\n", "install mailutils or bsd-mailx")
    else:
        _post(_url(rest), {"text": f"{title}\n{body}", "title": title, "lines": lines})


def _run(argv: list[str], stdin: str, fix: str) -> None:
    try:
        done = subprocess.run(
            argv, env=scrubbed(), input=stdin.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise FarmhandError(f"{argv[0]} is not installed", hint=fix, code="not_notified") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FarmhandError(f"{argv[0]} failed: {error}", code="not_notified") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        raise FarmhandError(f"{argv[0]} ended with {done.returncode}: {said}", code="not_notified")


def _url(given: str) -> str:
    """Return the webhook's URL: `given`, or the content of the file with that path. Raises NotConfigured."""
    if not given.startswith(("/", "~/")):
        return given
    try:
        url = Path(os.path.expanduser(given)).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise NotConfigured(f"the webhook's file {given} cannot be read: {error}") from None
    if not url.startswith(("https://", "http://")):
        raise NotConfigured(f"the webhook's file {given} holds no http(s) URL")
    return url


def _post(url: str, document: dict[str, object]) -> None:
    """Post JSON; Slack, Mattermost and similar services show its `text`."""
    request = urllib.request.Request(  # noqa: S310  (the scheme is checked by check_way)
        url, json.dumps(document).encode(), {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return
    except (OSError, ValueError) as error:
        # The URL is secret, so it is not printed.
        raise FarmhandError(f"the webhook failed: {error}", code="not_notified") from None
