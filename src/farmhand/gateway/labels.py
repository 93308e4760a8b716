"""The labels of a turn: the client that sends it, and the project that it is for. Each may have a budget of its own.

A label is what the client says of itself. It is for the operator's own sums, and no protection: the day's limit is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from farmhand.gateway.turn import BadRequest

if TYPE_CHECKING:
    from aiohttp import web  # commands read these names, too: they do without a server

#: The headers of the labels, by label. A client that sends none is known by its User-Agent.
HEADERS = {"client": "X-Farmhand-Client", "project": "X-Farmhand-Project"}
OURS = "x-farmhand-"
#: A label's name; in settings also `*`, for each name that has no budget of its own.
NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_name = re.compile(NAME)


def headers_of(request: web.BaseRequest) -> dict[str, str]:
    """Return a request's headers, names in lower case. Raise BadRequest if one of ours is there twice."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if (key := name.lower()) in found and key.startswith(OURS):
            raise BadRequest("-".join(part.capitalize() for part in key.split("-")), "it is there more than once")
        found[key] = value
    return found


def labels_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a turn: `client`, `project`. Raise BadRequest if a header names none."""
    found = {}
    for label, header in HEADERS.items():
        if (given := headers.get(header.lower())) is not None:
            found[label] = given.lower()
            if not _name.fullmatch(found[label]):
                raise BadRequest(header, f"{given[:40]!r} is not a name of a-z 0-9 . _ -, 64 at the most")
    # `claude-cli/2.1.330 (external, cli)` is `claude-cli`.
    if "client" not in found and (match := _name.match(headers.get("user-agent", "").lower())):
        found["client"] = match[0]
    return found
