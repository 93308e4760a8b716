"""A request for the Messages API, from a turn of any dialect.

One of the same dialect keeps its bytes: only the model is another. One of Chat Completions or Responses is made anew;
what cannot be carried is refused by its path, by the tables of `carries_paid`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from farmhand.gateway.carries import Walk
from farmhand.gateway.carries_paid import PAID_TABLES
from farmhand.gateway.dialects import chat, responses
from farmhand.gateway.dialects.reading import content, kind_of, object_at, objects, strings, text_at
from farmhand.gateway.turn import BadRequest, CannotCarry, Turn

#: The most tokens of an answer, if a client of another dialect names no limit. The Messages API wants one.
ANSWER_TOKENS = 8192
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
_IDENT = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]+);base64,", re.I)
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class PaidOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The model by its full id, whether the provider may fetch from URLs, and what is merged into the body."""

    model: str
    fetch: bool = False
    extra_body: Mapping[str, Any] = {}


class PaidRequest(msgspec.Struct, frozen=True):
    """A request for the API, its model, and the names of what was left out because it only advises."""

    body: bytes
    model: str
    omitted: tuple[str, ...] = ()


def request(turn: Turn, options: PaidOptions) -> PaidRequest:
    """Return the request. Raise CannotCarry for what the API cannot be given, BadRequest for a wrong type."""
    extra = {name: _raw(value) for name, value in options.extra_body.items()}
    if turn.dialect == "messages":
        if extra:
            fields = {**turn.fields, "model": _raw(options.model), **extra}
            return PaidRequest(msgspec.json.encode(fields), options.model)
        return PaidRequest(_with_model(turn, options.model), options.model)
    walk = Walk(PAID_TABLES)
    decoded = turn.values()
    made = (_of_chat if turn.dialect == "chat" else _of_responses)(decoded, options, walk)
    body: dict[str, Any] = {"model": options.model, "max_tokens": limit_of(turn), **made, **extra}
    if turn.streamed:
        body["stream"] = True
    try:
        return PaidRequest(msgspec.json.encode(body), options.model, walk.omitted)
    except OverflowError:
        raise BadRequest("", "the request has a whole number of more than 64 bits") from None


def limit_of(turn: Turn) -> int:
    """Return the most tokens of the answer to a turn."""
    if turn.max_tokens is not None or turn.dialect == "messages":
        return turn.max_tokens or 0
    return ANSWER_TOKENS


def to_count(body: bytes) -> bytes:
    """Return the request that has the API count the tokens of the request in `body`."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: fields[name] for name in _COUNTED if name in fields})


def _with_model(turn: Turn, model: str) -> bytes:
    """Return the turn's body with another model: all other bytes stay, white space between the fields too."""
    wanted = {**turn.fields, "model": _raw(model)}
    old, new = bytes(turn.fields["model"]), bytes(wanted["model"])
    for place in re.finditer(rb'"model"\s*:\s*' + re.escape(old), turn.body):
        made = turn.body[: place.end() - len(old)] + new + turn.body[place.end() :]
        # The first one that is found is the request's own, unless a tool or a message has such a field before it.
        if msgspec.json.decode(made, type=dict[str, msgspec.Raw]) == wanted:
            return made
    return msgspec.json.encode(wanted)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class _Told:
    """The conversation in the form of the Messages API: turns of user and assistant by turns, and the system texts."""

    def __init__(self) -> None:
        self.system: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        #: The id of each call as the API gets it, by the client's. Some servers begin anew with each answer, and the
        #: API wants them to be unique in a conversation.
        self._idents: dict[str, str] = {}
        self._used: set[str] = set()

    def call(self, ident: str, function: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return a call as a block."""
        arguments = text_at(function, "arguments", path, "") or "{}"
        try:
            given = msgspec.json.decode(arguments)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise CannotCarry(f"{path}.arguments", "no JSON object", "start a new conversation")
        made = _ident(ident)
        while made in self._used:
            made = _ident(f"{ident} {len(self._used)}")
        self._used.add(made)
        self._idents[ident] = made
        # As it was written: numbers and the order of names stay.
        raw = msgspec.Raw(arguments.encode())
        return {"type": "tool_use", "id": made, "name": text_at(function, "name", path), "input": raw}

    def told(self, text: str) -> None:
        """Add a system text: at the head, or amid the conversation as a reminder, where no other form is certain."""
        if not text:
            return
        if not self.messages:
            self.system.append({"type": "text", "text": text})
        else:
            self.add("user", [{"type": "text", "text": f"<system-reminder>\n{text}\n</system-reminder>"}])

    def add(self, role: str, blocks: list[dict[str, Any]]) -> None:
        """Add blocks; those of one side are joined, and empty texts left out, as the API takes none."""
        kept = [block for block in blocks if block["type"] != "text" or block["text"]]
        if not kept:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += kept
        else:
            self.messages.append({"role": role, "content": kept})

    def result(self, ident: str, blocks: list[dict[str, Any]]) -> None:
        """Add the result of a call: before all else that the user says after the call."""
        made: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._idents.get(ident) or _ident(ident)}
        if kept := [block for block in blocks if block["type"] != "text" or block["text"]]:
            made["content"] = kept
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "user":
            self.messages.append({"role": "user", "content": [made]})
            return
        results = sum(block["type"] == "tool_result" for block in last["content"])
        last["content"].insert(results, made)

    def body(self) -> dict[str, Any]:
        """Return `messages`, and `system` if there is any."""
        if not self.messages:
            raise BadRequest("", "nobody says anything in it")
        return {"messages": self.messages} | ({"system": self.system} if self.system else {})


def _ident(given: str) -> str:
    """Return the id of a call as the API takes it."""
    if _IDENT.fullmatch(given):
        return given
    return f"call_{blake2b(given.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def _of_chat(decoded: Mapping[str, Any], options: PaidOptions, walk: Walk) -> dict[str, Any]:
    carried = {name: decoded[name] for name in walk.fields(decoded, "chat.request", "")}
    told = _Told()
    for number, message in enumerate(objects(decoded.get("messages"), "messages")):
        _chat_message(message, f"messages[{number}]", told, options, walk)
    body = told.body()
    if stop := strings(decoded.get("stop"), "stop"):
        body["stop_sequences"] = stop
    tools = []
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        path = f"tools[{number}]"
        walk.kind(kind_of(tool, path), "chat.tools", path)
        tools.append(_tool(object_at(tool, "function", path), "parameters", f"{path}.function"))
    form = object_at(decoded, "response_format", "")
    if form:
        kind = kind_of(form, "response_format")
        walk.kind(kind, "chat.formats", "response_format")
        schema = object_at(form, "json_schema", "response_format").get("schema")
        body |= _format(kind, schema, "response_format")
    choice = decoded.get("tool_choice")
    chat.check_choice(choice, "chat.tool_choices", walk)
    if isinstance(choice, dict):
        choice = text_at(object_at(choice, "function", "tool_choice"), "name", "tool_choice.function")
        return body | _shared(carried, tools, {"type": "tool", "name": choice})
    return body | _shared(carried, tools, {"type": _CHOICES[choice]} if choice else None)


def _chat_message(message: dict[str, Any], path: str, told: _Told, options: PaidOptions, walk: Walk) -> None:
    walk.check(message, "chat.message", path)
    role = text_at(message, "role", path)
    walk.kind(role, "chat.roles", path)
    blocks = []
    for at, part in enumerate(content(message.get("content"), f"{path}.content", "text")):
        where = f"{path}.content[{at}]"
        kind = kind_of(part, where)
        walk.kind(kind, "chat.parts", where)
        if kind == "image_url":
            image = object_at(part, "image_url", where)
            walk.check(image, "chat.image", f"{where}.image_url")
            blocks.append(_image(text_at(image, "url", f"{where}.image_url"), where, options))
        else:
            blocks.append({"type": "text", "text": text_at(part, kind, where)})
    if isinstance(refusal := message.get("refusal"), str):
        blocks.append({"type": "text", "text": refusal})
    if role == "tool":
        told.result(text_at(message, "tool_call_id", path), blocks)
    elif role in ("system", "developer"):
        told.told(_texts(blocks, path, role))
    elif role == "user":
        told.add("user", blocks)
    else:
        _texts(blocks, path, role)
        for at, one in enumerate(objects(message.get("tool_calls"), f"{path}.tool_calls")):
            where = f"{path}.tool_calls[{at}]"
            walk.kind(kind_of(one, where, "function"), "chat.calls", where)
            function = object_at(one, "function", where)
            blocks.append(told.call(text_at(one, "id", where), function, f"{where}.function"))
        told.add("assistant", blocks)


def _of_responses(decoded: Mapping[str, Any], options: PaidOptions, walk: Walk) -> dict[str, Any]:
    carried = {name: decoded[name] for name in walk.fields(decoded, "responses.request", "")}
    told = _Told()
    if decoded.get("instructions") is not None:
        told.told(text_at(decoded, "instructions", ""))
    for path, item in responses.items_of(decoded):
        _item(item, path, told, options, walk)
    body = told.body()
    tools = []
    for number, tool in enumerate(objects(decoded.get("tools"), "tools")):
        path = f"tools[{number}]"
        walk.kind(kind_of(tool, path), "responses.tools", path)
        walk.check(tool, "responses.tool", path)
        tools.append(_tool(tool, "parameters", path))
    text = object_at(decoded, "text", "")
    walk.check(text, "responses.text", "text")
    if form := object_at(text, "format", "text"):
        walk.check(form, "responses.format", "text.format")
        kind = kind_of(form, "text.format")
        walk.kind(kind, "responses.formats", "text.format")
        body |= _format(kind, form.get("schema"), "text.format")
    choice = decoded.get("tool_choice")
    chat.check_choice(choice, "responses.tool_choices", walk)
    if isinstance(choice, dict):
        walk.check(choice, "responses.tool_choice", "tool_choice")
        return body | _shared(carried, tools, {"type": "tool", "name": text_at(choice, "name", "tool_choice")})
    return body | _shared(carried, tools, {"type": _CHOICES[choice]} if choice else None)


def _item(item: dict[str, Any], path: str, told: _Told, options: PaidOptions, walk: Walk) -> None:
    kind = kind_of(item, path, "message")
    if not walk.kind(kind, "responses.items", path):
        return
    walk.check(item, f"responses.{kind}", path)
    if kind == "function_call":
        told.add("assistant", [told.call(text_at(item, "call_id", path), item, path)])
        return
    field = "output" if kind == "function_call_output" else "content"
    blocks = []
    for number, part in enumerate(content(item.get(field), f"{path}.{field}", "input_text")):
        where = f"{path}.{field}[{number}]"
        inner = kind_of(part, where)
        walk.kind(inner, "responses.parts", where)
        walk.check(part, f"responses.{inner}", where)
        if inner == "input_image":
            blocks.append(_image(text_at(part, "image_url", where), where, options))
        else:
            name = "refusal" if inner == "refusal" else "text"
            blocks.append({"type": "text", "text": text_at(part, name, where)})
    if kind == "function_call_output":
        told.result(text_at(item, "call_id", path), blocks)
        return
    role = responses.role_in(item, path)
    if role == "user":
        told.add("user", blocks)
    elif role == "assistant":
        _texts(blocks, path, role)
        told.add("assistant", blocks)
    else:
        told.told(_texts(blocks, path, role))


def _texts(blocks: list[dict[str, Any]], path: str, role: str) -> str:
    """Return the blocks as one text. Raise CannotCarry if there is an image among them."""
    if any(block["type"] != "text" for block in blocks):
        raise CannotCarry(path, f"an image in a message of the role {role}")
    return "\n\n".join(block["text"] for block in blocks)


def _image(url: str, path: str, options: PaidOptions) -> dict[str, Any]:
    if match := _DATA_URL.match(url):
        source = {"type": "base64", "media_type": match[1].lower(), "data": url[match.end() :]}
    elif options.fetch and url.startswith("https://"):
        source = {"type": "url", "url": url}
    else:
        raise CannotCarry(path, "an image by URL, which the provider would fetch", "send its bytes")
    return {"type": "image", "source": source}


def _tool(function: Mapping[str, Any], parameters: str, path: str) -> dict[str, Any]:
    schema = object_at(function, parameters, path)
    made: dict[str, Any] = {
        "name": text_at(function, "name", path),
        "input_schema": schema | {"type": schema.get("type") or "object"},
    }
    if function.get("description"):
        made["description"] = text_at(function, "description", path)
    if function.get("strict"):
        made["strict"] = True
    return made


def _format(kind: str, schema: Any, path: str) -> dict[str, Any]:
    """Return the form of the answer. The API keeps to a schema, and knows no JSON object of any shape."""
    if kind == "text":
        return {}
    if kind != "json_schema" or not isinstance(schema, dict):
        raise CannotCarry(path, "a JSON object of any shape", "give its schema")
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def _shared(carried: Mapping[str, Any], tools: list[dict[str, Any]], choice: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields that Chat Completions and Responses have in common."""
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p"):
        if (value := carried.get(name)) is not None:
            body[name] = value
    temperature = carried.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        raise CannotCarry("temperature", "above 1, which the Messages API does not take", "ask for 1 or less")
    if not tools:
        return body
    body["tools"] = tools
    if choice is not None and choice["type"] == "tool" and all(tool["name"] != choice["name"] for tool in tools):
        raise CannotCarry("tool_choice", "the choice of a tool that is not offered")
    if carried.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice
    return body
