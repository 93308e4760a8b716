"""What local model servers are: whether they run, which model, how much it holds, and whether it sees images.

Only the server is asked, never the provider. Each kind of server answers the list of models, and says the rest in its
own place; what it does not say stays unknown. Sources: llama.cpp's tools/server/README.md; Ollama's docs/api.md; LM
Studio's REST API v0; vLLM's OpenAI-compatible server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from farmhand.gateway.turn import Reason
from farmhand.meter.upstream import Upstream, UpstreamError

#: Seconds between two looks at a server, and that one answer may take.
_EVERY_S = 5.0
_PATIENCE_S = 3.0
#: Bytes of an answer that are read. llama.cpp's /props holds the chat template.
_MAX_ANSWER = 4 * 1024 * 1024
#: The most that is believed: tokens of a context, turns at once, characters of a model's name (which may be a path).
_MOST_CONTEXT, _MOST_SLOTS, _MOST_NAME = 2**31, 4096, 4096


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself. `context`: tokens that one request and its answer may have, 0 if it is unknown."""

    kind: str
    model: str
    context: int = 0
    vision: bool = False
    schema: bool = False
    slots: int = 0


class _Model(msgspec.Struct):
    """One model of a list: the fields of llama.cpp, vLLM, Ollama and LM Studio that are used here."""

    id: str = ""
    owned_by: str = ""
    max_model_len: int = 0
    type: str = ""
    state: str = ""
    loaded_context_length: int = 0


class _Models(msgspec.Struct):
    data: list[_Model] = []


class _Settings(msgspec.Struct):
    n_ctx: int = 0


class _Modalities(msgspec.Struct):
    vision: bool = False


class _Props(msgspec.Struct):
    default_generation_settings: _Settings = msgspec.field(default_factory=_Settings)
    modalities: _Modalities = msgspec.field(default_factory=_Modalities)
    total_slots: int = 0


class _Loaded(msgspec.Struct):
    model: str = ""
    context_length: int = 0


class _Running(msgspec.Struct):
    models: list[_Loaded] = []


class _Shown(msgspec.Struct):
    capabilities: list[str] = []


class _Version(msgspec.Struct):
    version: str


class Unlike(Exception):
    """An answer that is not of the kind asked for; the text says what it is."""


async def _ask(upstream: Upstream, path: str, kind: Any, headers: Mapping[str, str], body: bytes = b"") -> Any:
    """Return the decoded answer to a GET, or to a POST of `body`, in which null is as good as nothing.

    Raise Unlike, UpstreamError or TimeoutError.
    """
    async with upstream.request("POST" if body else "GET", path, headers, body) as answer:
        text = await answer.read(_MAX_ANSWER)
    if answer.status in (401, 403):
        raise Unlike(f"wants a key (HTTP {answer.status}): set auth_env")
    if answer.status == 503:
        raise Unlike("loading its model")
    if answer.status != 200:
        raise Unlike(f"answers HTTP {answer.status} to {path}")
    try:
        # What a server does not know may be null: `"max_model_len": null`, and without models `"data": null`.
        return msgspec.convert(_without_null(msgspec.json.decode(text)), kind)
    except (ValueError, RecursionError):
        raise Unlike(f"answers {path} as no model server does") from None


def _without_null(value: Any) -> Any:
    """Return a decoded value without the keys of its objects that are null."""
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value


async def look(upstream: Upstream, wanted: str, headers: Mapping[str, str]) -> Seen:
    """Return what the server says of the model `wanted`, "" for its first. What cannot be is as if it were not said.

    Raise Unlike, UpstreamError or TimeoutError.
    """
    said = await _said(upstream, wanted, headers)
    if not (said.model.isprintable() and 0 < len(said.model) <= _MOST_NAME):
        raise Unlike("has a model without a name that can be shown")
    context = said.context if 0 < said.context <= _MOST_CONTEXT else 0
    return msgspec.structs.replace(said, context=context, slots=min(max(said.slots, 0), _MOST_SLOTS))


async def _said(upstream: Upstream, wanted: str, headers: Mapping[str, str]) -> Seen:
    listed: list[_Model] = (await _ask(upstream, "/v1/models", _Models, headers)).data
    found = next((model for model in listed if wanted in ("", model.id)), None)
    if found is None:
        raise Unlike(f"has no model {wanted}" if wanted else "has no model")
    if found.owned_by == "llamacpp":
        # An older one, or one without --props, does not say more.
        with suppress(Unlike):
            props: _Props = await _ask(upstream, "/props", _Props, headers)
            context = props.default_generation_settings.n_ctx
            vision, slots = props.modalities.vision, props.total_slots
            return Seen(kind="llama.cpp", model=found.id, context=context, vision=vision, schema=True, slots=slots)
        return Seen(kind="llama.cpp", model=found.id, schema=True)
    if found.max_model_len:
        return Seen(kind="vLLM", model=found.id, context=found.max_model_len, schema=True)
    with suppress(Unlike):
        return await _ollama(upstream, found.id, headers)
    with suppress(Unlike):
        return await _lm_studio(upstream, found.id, headers)
    return Seen(kind="unknown", model=found.id)


async def _ollama(upstream: Upstream, model: str, headers: Mapping[str, str]) -> Seen:
    await _ask(upstream, "/api/version", _Version, headers)
    running: _Running = await _ask(upstream, "/api/ps", _Running, headers)
    # A model that is not loaded has no context yet: it depends on the memory that is free then.
    context = next((one.context_length for one in running.models if one.model == model), 0)
    shown: _Shown = await _ask(upstream, "/api/show", _Shown, headers, msgspec.json.encode({"model": model}))
    return Seen(kind="Ollama", model=model, context=context, vision="vision" in shown.capabilities, schema=True)


async def _lm_studio(upstream: Upstream, model: str, headers: Mapping[str, str]) -> Seen:
    listed: list[_Model] = (await _ask(upstream, "/api/v0/models", _Models, headers)).data
    found = next((one for one in listed if one.id == model), None)
    if found is None:
        raise Unlike(f"has no model {model}")
    vision = found.type == "vlm"
    return Seen(kind="LM Studio", model=model, context=found.loaded_context_length, vision=vision, schema=True)


class Prober:
    """Looks at one server again and again. `seen` is the last look, None while there is a `problem`."""

    def __init__(self, upstream: Upstream, wanted: str, headers: Mapping[str, str]) -> None:
        self.seen: Seen | None = None
        self.problem: Reason | None = Reason("unknown", "not asked yet")
        self._upstream = upstream
        self._wanted = wanted
        self._headers = headers
        #: Set once the server has been asked.
        self.looked = asyncio.Event()
        self._asked = asyncio.Event()

    async def look(self) -> None:
        """Ask the server now."""
        address = self._upstream.host.removeprefix("host: ")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                self.seen = await look(self._upstream, self._wanted, self._headers)
            self.problem = None
        except UpstreamError as error:
            self.fail(Reason("down", f"not running ({str(error).lower()}, {address})"))
        except TimeoutError:
            # A server that computes on its only thread answers late. What is known of it stays true.
            if self.seen is None:
                self.fail(Reason("down", f"no answer within {_PATIENCE_S:.0f} s ({address})"))
        except Unlike as error:
            self.fail(Reason("down", f"{error} ({address})"))
        self.looked.set()

    def fail(self, reason: Reason) -> None:
        """Note that the server is not to be used until the next look."""
        self.seen, self.problem = None, reason

    def soon(self) -> None:
        """Look again at once rather than at the next time: a request to it has failed."""
        self._asked.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            self._asked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._asked.wait()
