"""Batch files of others as input: OpenAI's (`custom_id`, `method`, `url`, `body`), Anthropic's (`custom_id`, `params`).

A body of OpenAI's becomes a request of the Messages API by the gateway's readers, so that both doors understand it
alike; a request of the Messages API becomes a task. What a task has no place for is refused by its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from farmhand.batch.inputs import DoubledKey, InputRecord, JsonLines, read_json, read_lines
from farmhand.batch.template import BadRecord
from farmhand.core import attachments
from farmhand.core.keys import redact
from farmhand.core.task import DEFAULT_MODEL, MODELS
from farmhand.gateway.carries import TABLES, Table, Walk, plain, table
from farmhand.gateway.dialects import chat, responses, to_messages
from farmhand.gateway.dialects.reading import content, kind_of, object_at, objects, role_of, text_at
from farmhand.gateway.turn import BadRequest, CannotCarry, Turn

#: The most bytes of a file that is one JSON document: the provider's own limit of a Message Batch.
MAX_DOCUMENT = 256 * 1024**2
MAX_CUSTOM_ID = 512
#: Azure's files have no version in front.
_READERS: dict[str, Callable[[bytes, Mapping[str, str]], Turn]] = {
    f"{front}{path}": reader
    for front in ("/v1", "")
    for path, reader in (("/chat/completions", chat.read), ("/responses", responses.read))
}
_FIELDS = {"openai": ("custom_id", "method", "url", "body"), "anthropic": ("custom_id", "params")}
#: The field of the Messages API by the one of OpenAI's that it was made of.
_THEIRS = {"stop_sequences": "stop", "output_config": "response_format"}
_NOT_IN_A_TASK = "something that a task has not"
_SAMPLING = "a setting that the current models do not take"
_TOOLS = "a tool of the client's, which nobody here runs"
_MESSAGES = TABLES["messages.request"]
#: What becomes of a request of the Messages API. `carried` is what a task has.
TASK_TABLES: Mapping[str, Table] = {
    **TABLES,
    "task.request": table(
        "max_tokens messages model output_config system",
        " ".join(_MESSAGES.advisory - {"context_management", "speed", "thinking"}),
        {
            **_MESSAGES.refused,
            "stream": "a request for a stream, and a batch has whole answers",
            "stop_sequences": _NOT_IN_A_TASK,
            "temperature top_k top_p": _SAMPLING,
            "thinking": "a setting for thinking, which a task does not do",
            "tools": (_TOOLS, "for an answer in a form of your own give a schema"),
            "tool_choice": _TOOLS,
        },
        harmless={"temperature": (1,), "top_p": (1,), "thinking": ({"type": "disabled"},)},
        unknown="a field that farmhand does not know",
    ),
    "task.message": table("role content"),
    "task.blocks": table(
        "document image text",
        refused={
            **TABLES["messages.blocks"].refused,
            "tool_result tool_use": ("a call of a tool", ""),
            "redacted_thinking thinking": ("another answer's thinking", "leave it out"),
        },
        unknown="a block that farmhand does not know",
    ),
    "task.document": table(
        "type source",
        "cache_control",
        {"citations": ("a request for citations", ""), "context title": ("a field that a task's PDF has not", "")},
        harmless={"citations": ({"enabled": False},)},
    ),
    "task.sources": table(
        "base64",
        refused={
            "url": ("a file by URL", "send its bytes"),
            "file": ("a file by its id", "send its bytes"),
            "content text": ("a document that is text", "put it into the prompt"),
        },
        unknown="a source that farmhand does not know",
    ),
    "task.output_config": table("format", refused={"effort task_budget": _NOT_IN_A_TASK}),
}


class RequestLines(JsonLines):
    """The requests of another's batch file, one on each line, or all of them in one JSON document.

    `form` is openai or anthropic. `model` answers all of them, whatever they name; "": each names one of Claude's.
    Fields named in `drop`, such as `output_config.effort`, are taken out of each request first. `left_out` counts the
    lines of each field that was left out because it asks for nothing that changes an answer. The `custom_id` comes
    back with the result.
    """

    def __init__(
        self, file: IO[bytes], form: str, defaults: dict[str, Any], model: str = "", drop: Sequence[str] = ()
    ) -> None:
        super().__init__(file, {name: value for name, value in defaults.items() if name != "model" or model})
        self.form = form
        self._model = model
        self._usual = defaults.get("model", DEFAULT_MODEL)
        self._unwanted = [name.split(".") for name in drop]
        self._lines: dict[str, int] = {}
        self.kept = ["custom_id"]

    def records(self) -> Iterator[InputRecord]:
        """Yield all records in order."""
        try:
            whole = _document(self._file)
        except DoubledKey as error:
            yield InputRecord(1, None, str(error))
            return
        if whole is None:
            yield from super().records()
            return
        requests, strange = whole
        if strange:
            yield InputRecord(1, None, f"has the field {plain(strange)!r} beside requests (take it out)")
        for n, one in enumerate(requests, start=1):
            yield self._record(n, lambda one=one: one)  # type: ignore[misc]  # bound at once

    def _record(self, n: int, read: Callable[[], Any]) -> InputRecord:
        found = super()._record(n, read)
        if found.columns is None:
            return found
        custom_id = found.columns["custom_id"]
        before = self._lines.setdefault(custom_id, n)
        same = f"has the custom_id {custom_id!r:.80}, as line {before} has"
        return found if before == n else InputRecord(n, None, same)

    def _columns(self, record: Any) -> dict[str, Any]:
        return {name: record[name] for name in ("custom_id", "url") if name in record}

    def _fields(self, record: Any) -> dict[str, Any]:
        names = _FIELDS[self.form]
        if not isinstance(record, dict):
            raise BadRecord(f"is no request: an object with {', '.join(names)}")
        if strange := sorted(record.keys() - names):
            raise BadRecord(f"has the field {plain(strange[0])!r}, which a request does not have")
        custom_id = record.get("custom_id")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            raise BadRecord(f"has no custom_id: a text of 1 to {MAX_CUSTOM_ID} characters")
        if redact(custom_id) != custom_id:
            raise BadRecord("has an API key in its custom_id (take it out: it would be kept)")
        where = names[-1]
        body = record.get(where)
        if not isinstance(body, dict):
            raise BadRecord(f"has no {where}, which must be an object")
        for path in self._unwanted:
            body = _without(body, path)
        try:
            return {**self._defaults, **self._task(record, body)}
        except BadRequest as error:
            raise BadRecord(f"is no request that can be read: {_at(where, error.path)}: {error.why}") from None
        except CannotCarry as error:
            raise BadRecord(_refusal(where, error)) from None

    def _task(self, record: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of the task for a request. Raise BadRecord, BadRequest or CannotCarry."""
        fields = {"model": self._named(body)}
        if self.form == "anthropic":
            return fields | self._carried(body, {})
        if record.get("method", "POST") != "POST":
            raise BadRecord("has another method than POST")
        reader = _READERS.get(record.get("url", "")) if isinstance(record.get("url"), str) else None
        if reader is None:
            known = "/v1/chat/completions and /v1/responses"
            raise BadRecord(f"has the url {record.get('url')!r:.80}, and no task is made of that (known: {known})")
        if body.get("stream"):
            raise CannotCarry("stream", "a request for a stream, and a batch has whole answers")
        if body.get("tools"):
            raise CannotCarry("tools", _TOOLS, "for an answer in a form of your own give a schema")
        # The gateway's readers take these as advice: how much is thought before the answer.
        efforts = {"reasoning_effort": body.get("reasoning_effort")}
        efforts["reasoning.effort"] = object_at(body, "reasoning", "").get("effort")
        for path, effort in efforts.items():
            if effort not in (None, "none"):
                raise CannotCarry(path, _NOT_IN_A_TASK)
        turn = reader(json.dumps({**body, "model": fields["model"]}).encode(), {})
        names = _THEIRS if turn.dialect == "chat" else _THEIRS | {"output_config": "text.format"}
        if turn.carries.prefill:
            raise _prefill("messages" if turn.dialect == "chat" else "input")
        made = to_messages.request(turn, to_messages.PaidOptions(model=turn.model))
        self.left_out.update(made.omitted)
        params = msgspec.json.decode(made.body)
        if turn.max_tokens is None:
            del params["max_tokens"]
        try:
            return fields | self._carried(params, names)
        except CannotCarry as error:
            # Its messages are numbered otherwise than those of the line.
            path = re.sub(r"\[.*", "", error.path)
            raise CannotCarry(names.get(path, path), error.what, error.hint) from None

    def _named(self, body: dict[str, Any]) -> str:
        """Return the model of a request. Raise CannotCarry for one that is none of Claude's."""
        named = body.get("model")
        if self._model or named is None:
            return str(self._model or self._usual)
        if not isinstance(named, str) or not (named in MODELS or named.startswith("claude-")):
            hint = "--model haiku answers all lines with that one"
            raise CannotCarry("model", f"{named!r:.80}, which is none of Claude's", hint)
        return named

    def _carried(self, params: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields of the task that a request of the Messages API is. Raise BadRequest or CannotCarry."""
        walk = Walk(TASK_TABLES)
        asked = {name: params[name] for name in walk.fields(params, "task.request", "")}
        fields = _conversation(asked.get("messages"), walk)
        if isinstance(system := asked.get("system"), str | list) and system:
            fields["system"] = _text(system, "system", walk)
        elif system:
            raise BadRequest("system", "it is neither a text nor a list of texts")
        if (most := asked.get("max_tokens")) is not None:
            fields["max_tokens"] = most
        elif self.form == "anthropic":
            raise BadRequest("max_tokens", "it is missing")
        config = object_at(asked, "output_config", "")
        walk.check(config, "task.output_config", "output_config")
        if form := object_at(config, "format", "output_config"):
            walk.kind(kind_of(form, "output_config.format"), "messages.formats", "output_config.format")
            walk.check(form, "messages.format", "output_config.format")
            fields["schema"] = object_at(form, "schema", "output_config.format")
        self.left_out.update(walk.omitted)
        return fields


def form_of_file(file: IO[bytes]) -> str:
    """Return openai or anthropic if the first line of the file, or of its one document, is such a request, else "".

    A task of ours has neither `custom_id` nor `body` nor `params`.
    """
    whole = _document(file)
    first = next(iter(whole[0]), None) if whole is not None else _first_line(file)
    if not isinstance(first, dict) or "custom_id" not in first:
        return ""
    return next((form for form, names in _FIELDS.items() if first.keys() & set(names[1:])), "")


def _first_line(file: IO[bytes]) -> Any:
    """Return the value of the first line that is not blank; None if it is not JSON."""
    try:
        return next((read_json(line) for line in read_lines(file) if line.strip()), None)
    except BadRecord:
        return None


def _document(file: IO[bytes]) -> tuple[list[Any], str] | None:
    """Return the requests of a file that is one JSON document: a list, or an object with `requests`; else None.

    Second is a field that such an object should not have; "": it has none. Raise DoubledKey.
    """
    first = _first_line(file)
    if (isinstance(first, dict) and "requests" not in first) or file.seek(0, 2) > MAX_DOCUMENT:
        return None
    file.seek(0)
    try:
        value = read_json(file.read())
    except DoubledKey:
        raise
    except BadRecord:
        return None
    found = value.get("requests") if isinstance(value, dict) else value
    strange = sorted(value.keys() - {"requests"}) if isinstance(value, dict) else []
    return (found, (strange or [""])[0]) if isinstance(found, list) else None


def _conversation(messages: Any, walk: Walk) -> dict[str, Any]:
    """Return prompt, files and history of a task. Raise BadRequest or CannotCarry."""
    turns: list[_Side] = []
    for number, message in enumerate(objects(messages, "messages")):
        path = f"messages[{number}]"
        walk.check(message, "task.message", path)
        role = role_of(message, ("assistant", "user"), path)
        if not turns or turns[-1].role != role:
            turns.append(_Side(role, path))
        for at, block in enumerate(content(message.get("content"), f"{path}.content", "text")):
            turns[-1].add(block, f"{path}.content[{at}]", walk)
    if not turns or turns[-1].role == "assistant":
        raise _prefill("messages") if turns else BadRequest("messages", "there is none")
    if turns[0].role == "assistant":
        raise CannotCarry("messages", "a conversation that begins with an answer")
    *earlier, last = turns
    history = [
        {**asked.as_turn(), "answer": "\n\n".join(said.texts)}
        for asked, said in zip(earlier[::2], earlier[1::2], strict=True)
    ]
    return last.as_turn() | ({"history": history} if history else {})


class _Side:
    """What one side says in a turn: its texts, and the pictures and PDFs before or after them."""

    def __init__(self, role: str, path: str) -> None:
        self.role = role
        self.texts: list[str] = []
        self._path = path
        self._files: list[dict[str, str]] = []
        self._order = ""

    def add(self, block: dict[str, Any], path: str, walk: Walk) -> None:
        """Add a block. Raise BadRequest or CannotCarry."""
        kind = kind_of(block, path)
        walk.kind(kind, "task.blocks", path)
        if kind == "text":
            self.texts += filter(None, [_text([block], path, walk)])
            self._order += "t"
            return
        walk.check(block, "task.document" if kind == "document" else "messages.image", path)
        if self.role == "assistant":
            raise CannotCarry(path, "a file in an answer")
        source = object_at(block, "source", path)
        walk.kind(kind_of(source, f"{path}.source"), "task.sources", f"{path}.source")
        self._files.append(_file(text_at(source, "data", f"{path}.source"), path))
        self._order += "f"

    def as_turn(self) -> dict[str, Any]:
        """Return prompt and files. Raise CannotCarry if their order has a meaning that would be lost."""
        if not re.fullmatch("t*f*|f*t*", self._order):
            raise CannotCarry(self._path, "text between pictures, and a task's pictures go before its text")
        return {"prompt": "\n\n".join(self.texts)} | ({"files": self._files} if self._files else {})


def _without(value: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Return an object without the field at `path`."""
    name, *rest = path
    if rest and isinstance(inner := value.get(name), dict):
        return value | {name: _without(inner, rest)}
    return value if rest else {each: one for each, one in value.items() if each != name}


def _text(value: str | list[Any], path: str, walk: Walk) -> str:
    """Return the text of a text, or of a list of blocks that are text. Raise BadRequest or CannotCarry."""
    texts = []
    for block in content(value, path, "text"):
        if kind_of(block, path) != "text":
            raise CannotCarry(path, "something else than text")
        walk.check(block, "messages.text", path)
        texts.append(text_at(block, "text", path))
    return "\n\n".join(texts)


def _file(data: str, path: str) -> dict[str, str]:
    """Return a file, which its content tells and not what it is called: `image/jpg` is common, and no type."""
    data = "".join(data.split())
    try:
        kind = attachments.media_type(attachments.head(data))
    except ValueError:
        raise BadRequest(path, "its data is not base64") from None
    if not kind:
        raise CannotCarry(path, f"no {attachments.KINDS} by its content")
    return {"media_type": kind, "data": data}


def _prefill(path: str) -> CannotCarry:
    return CannotCarry(path, "ended by the beginning of an answer, with which no task goes on")


def _at(where: str, path: str) -> str:
    return f"{where}.{path}" if path else where


def _refusal(where: str, error: CannotCarry) -> str:
    hint = "" if error.hint == "stream it" else error.hint
    if not hint and re.fullmatch(r"[\w.]+", error.path) and error.path not in ("messages", "input"):
        hint = f"--drop {error.path} leaves it out"
    what = error.what.replace("this gateway", "farmhand")
    return f"cannot be carried: {_at(where, error.path)} is {what}{f' ({hint})' if hint else ''}"
