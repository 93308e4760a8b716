"""What the readers of the three dialects have in common: a checked document, its types by JSON path, and a count.

Everything here takes time and memory in proportion to the body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from farmhand.gateway.carries import plain
from farmhand.gateway.turn import BadRequest, Carries, Dialect, Turn
from farmhand.meter.bounds import check_values
from farmhand.meter.images import image_tokens

#: JSON values per request. A turn of a harness has about 20, its tools a few thousand.
MAX_VALUES = 400_000
#: Lists and objects in each other. A tool's schema has about 10.
MAX_DEPTH = 100
#: Bytes of JSON text that a token stands for, roughly; other characters than ASCII count one and a half times.
_BYTES_PER_TOKEN = 4
_CONTAINERS = frozenset({dict, list})
#: Headers that open something: they stay with the guard.
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


def document(body: bytes) -> tuple[dict[str, Any], dict[str, msgspec.Raw]]:
    """Return the request in `body`, decoded, and its fields undecoded. Raise BadRequest."""
    try:
        check_values(body, MAX_VALUES)
        decoded = msgspec.json.decode(body)
        if not isinstance(decoded, dict):
            raise BadRequest("", "the request is no JSON object")
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except RecursionError:
        raise BadRequest("", f"the request has more than {MAX_DEPTH} lists and objects in each other") from None
    except UnicodeDecodeError as error:
        raise BadRequest("", f"the request is not valid UTF-8: {error.reason}") from None
    except ValueError as error:
        raise BadRequest("", f"the request is not valid JSON that can be passed on: {error}"[:300]) from None
    _check_depth(decoded)
    if b"\\u0000" in body and (path := _nul(decoded)) is not None:
        raise BadRequest(path, "it has a NUL character, which ends a text for many a server")
    return decoded, fields


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each member of a list or an object."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield f"[{number}]", one
    elif isinstance(value, dict):
        for name, one in value.items():
            yield f".{plain(name)}", one


def _check_depth(decoded: dict[str, Any]) -> None:
    # Each value of a request is looked at here, so the look at its class is the cheapest that there is.
    level: list[Any] = [decoded]
    for _ in range(MAX_DEPTH):
        level = [
            one
            for value in level
            for one in (value if value.__class__ is list else value.values())
            if one.__class__ in _CONTAINERS
        ]
        if not level:
            return
    raise BadRequest("", f"the request has more than {MAX_DEPTH} lists and objects in each other")


def _nul(decoded: Any, path: str = "") -> str | None:
    """Return the path of the first text with a NUL character in it."""
    if isinstance(decoded, str):
        return path if "\0" in decoded else None
    if isinstance(decoded, dict) and any("\0" in name for name in decoded):
        return path
    found = (_nul(one, path + step) for step, one in _inside(decoded))
    place = next((place for place in found if place is not None), None)
    return place.removeprefix(".") if place is not None and not path else place


def kind_of(value: Mapping[str, Any], path: str, default: str | None = None) -> str:
    """Return the `type` of an object. Raise BadRequest if it is no text."""
    kind = value.get("type", default)
    if not isinstance(kind, str):
        raise BadRequest(f"{path}.type", "it is no text")
    return kind


def text_at(value: Mapping[str, Any], name: str, path: str, default: str | None = None) -> str:
    """Return a field that must be text; a missing one is `default`. Raise BadRequest."""
    found = value.get(name, default)
    if not isinstance(found, str):
        raise BadRequest(f"{path}.{name}" if path else name, "it is no text" if name in value else "it is missing")
    return found


def object_at(value: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """Return a field that must be an object; a missing one is empty. Raise BadRequest."""
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest(f"{path}.{name}" if path else name, "it is no object")
    return found


def objects(value: Any, path: str) -> list[dict[str, Any]]:
    """Return `value`, which must be a list of objects; None is an empty one. Raise BadRequest."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest(path, "it is no list")
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise BadRequest(f"{path}[{number}]", "it is no object")
    return value


def content(value: Any, path: str, text: str) -> list[dict[str, Any]]:
    """Return content as a list of blocks: a string is one of type `text`. Raise BadRequest."""
    return [{"type": text, "text": value}] if isinstance(value, str) else objects(value, path)


def strings(value: Any, path: str) -> list[str]:
    """Return `value`, which must be a text or a list of texts; None is an empty one. Raise BadRequest."""
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadRequest(path, "it is neither a text nor a list of texts")
    return found


def role_of(message: Mapping[str, Any], roles: Collection[str], path: str) -> str:
    """Return a message's role. Raise BadRequest if it is none of `roles`."""
    role = message.get("role")
    if not isinstance(role, str) or role not in roles:
        raise BadRequest(f"{path}.role", f"it is none of {', '.join(sorted(roles))}")
    return role


class Found:
    """What a reader has found in a request beside plain text."""

    def __init__(self) -> None:
        self.tools = self.images = self.documents = 0
        self.tool_history = self.image_urls = False
        self.hosted: list[str] = []
        self._image_bytes = self._image_tokens = 0

    def image(self, data: Any) -> None:
        """Count an image: its base64, a data URL, or something else that a server would fetch."""
        self.images += 1
        if not isinstance(data, str) or not data or "://" in data[:16]:
            self.image_urls = True
            return
        payload = data.partition(",")[2] if data.startswith("data:") else data
        self._image_bytes += len(payload)
        self._image_tokens += image_tokens(payload)

    def offered(self, kind: str, own: Collection[str]) -> None:
        """Count a tool: the client's own if its type is in `own`, else one that only the provider knows."""
        if kind in own:
            self.tools += 1
        else:
            self.hosted.append(plain(kind))

    def turn(
        self,
        dialect: Dialect,
        decoded: dict[str, Any],
        fields: dict[str, msgspec.Raw],
        headers: Mapping[str, str],
        *,
        read: Collection[str],
        limits: Collection[str],
        **carries: bool,
    ) -> Turn:
        """Return the turn. A model reads the fields `read`; the first of `limits` limits the answer."""
        model = text_at(decoded, "model", "")
        if not model:
            raise BadRequest("model", "it is empty")
        streamed = decoded.get("stream")
        if not isinstance(streamed, bool | None):
            raise BadRequest("stream", "it is neither true nor false")
        most = None
        for name in limits:
            value = decoded.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise BadRequest(name, "it is no whole number of 0 or more")
            most = value if most is None else most
        parts = [memoryview(fields[name]) for name in read if name in fields]
        size = sum(len(part) + (len(part) - len(str(part, "utf-8"))) // 2 for part in parts) - self._image_bytes
        return Turn(
            dialect=dialect,
            model=model,
            streamed=bool(streamed),
            fields=fields,
            decoded=decoded,
            carries=Carries(
                tools=self.tools,
                tool_history=self.tool_history,
                images=self.images,
                image_urls=self.image_urls,
                documents=self.documents,
                hosted_tools=tuple(dict.fromkeys(self.hosted)),
                **carries,
            ),
            tokens=max(size, 0) // _BYTES_PER_TOKEN + self._image_tokens,
            max_tokens=most,
            headers={name.lower(): value for name, value in headers.items() if name.lower() not in _SECRET},
        )
