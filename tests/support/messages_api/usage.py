"""Token counts: about the real tokenizer's, and a prompt cache with the real one's rules."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
import time
from collections.abc import Iterator
from typing import Any

from tests.support.messages_api.catalog import Model
from tests.support.messages_api.validate import Request

#: Tokens that every request costs beside its text, and that tools add. Source: the provider's tool use page.
OVERHEAD = 8
TOOLS_OVERHEAD = 346
#: How many blocks before a marker are looked at for an earlier entry.
LOOKBACK = 20
TTL_S = {"5m": 300.0, "1h": 3600.0}


def tokens(size: int, model: Model) -> int:
    """Tokens in `size` bytes of text."""
    return math.ceil(size / model.token_bytes)


def _blocks(request: Request) -> Iterator[tuple[str, bytes, int, str | None]]:
    """Every cacheable part in the order of the prefix: where it stands, its text, the tokens of its pictures and PDFs,
    the ttl of its marker.
    """
    body = request.body
    for tool in request.tools:
        yield "tool", _dump(tool), 0, _ttl(tool)
    for role, content in [("system", body.get("system", []))] + [(m["role"], m["content"]) for m in body["messages"]]:
        if isinstance(content, str):
            content = [{"type": "text", "text": content}] if content else []
        for block in content:
            yield role, _dump(block), _media(block), _ttl(block)


def _media(block: dict[str, Any]) -> int:
    """Tokens of a picture (PNG only, else 1 x 1) or a PDF. Source: the provider's vision and PDF pages."""
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") != "base64":
        inner = block.get("content")
        return sum(map(_media, inner)) if isinstance(inner, list) else 0
    data = base64.b64decode(f"{source['data']}==")
    if block["type"] == "document":
        return 3000 * len(re.findall(rb"/Type\s*/Page\b", data))
    width, height = struct.unpack_from(">II", data, 16) if data[12:16] == b"IHDR" and len(data) > 24 else (1, 1)
    patches: int = math.ceil(width / 28) * math.ceil(height / 28)
    return min(patches, 4784)


def _bare(value: Any) -> Any:
    """`value` without the bytes of pictures and PDFs, which are no text."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict) or value.get("type") == "tool_use":
        return value
    return {k: "" if k == "data" and value.get("type") == "base64" else _bare(v) for k, v in value.items()}


def _dump(block: dict[str, Any]) -> bytes:
    if block.get("type") == "text":
        return str(block["text"]).encode("utf-8", "surrogatepass")
    plain = {k: v for k, v in block.items() if k != "cache_control"}
    return json.dumps(_bare(plain) if "content" in plain or "source" in plain else plain, ensure_ascii=False).encode()


def _ttl(block: dict[str, Any]) -> str | None:
    marker = block.get("cache_control")
    return str(marker.get("ttl", "5m")) if isinstance(marker, dict) else None


class PromptCache:
    """Prefixes seen before, by hash; an entry lives for its ttl from its last use."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, str]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def count(self, request: Request, key: str, *, store: bool = True) -> dict[str, Any]:
        """The input side of `usage`. `key` keeps one account's cache from another's."""
        model = request.model
        digest = hashlib.sha256(f"{key}\0{model.id}\0".encode())
        size, seen, edges, markers = 0, 0, [], []
        for role, raw, media, ttl in _blocks(request):
            digest.update(f"{role} {len(raw)} {media} ".encode() + raw)
            size += len(raw)
            seen += media
            edges.append((digest.hexdigest(), tokens(size, model) + seen))
            if ttl:
                markers.append((len(edges) - 1, ttl))
        if isinstance(request.body.get("cache_control"), dict) and edges:
            markers.append((len(edges) - 1, str(request.body["cache_control"].get("ttl", "5m"))))
        total = (edges[-1][1] if edges else 0) + OVERHEAD + (TOOLS_OVERHEAD if request.tools else 0)
        markers = [(i, ttl) for i, ttl in markers if edges[i][1] >= model.cache_min]
        read, written = (0, {"5m": 0, "1h": 0}) if not markers else self._look(edges, markers, store=store)
        return {
            "input_tokens": total - read - sum(written.values()),
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written["5m"], "ephemeral_1h_input_tokens": written["1h"]},
        }

    def _look(
        self, edges: list[tuple[str, int]], markers: list[tuple[int, str]], *, store: bool
    ) -> tuple[int, dict[str, int]]:
        now = time.monotonic()
        read, read_edge = 0, -1
        for index, _ in reversed(markers):
            for i in range(index, max(-1, index - LOOKBACK), -1):
                entry = self._entries.get(edges[i][0])
                if entry and entry[0] > now:
                    read, read_edge = edges[i][1], i
                    self._entries[edges[i][0]] = (now + TTL_S[entry[1]], entry[1])
                    break
            if read:
                break
        written = {"5m": 0, "1h": 0}
        done = read
        for index, ttl in markers:
            if index > read_edge:
                written[ttl] += edges[index][1] - done
                done = edges[index][1]
                if store:
                    self._entries[edges[index][0]] = (now + TTL_S[ttl], ttl)
        return read, written
