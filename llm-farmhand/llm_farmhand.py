"""llm's plugin for Farmhand: the models `farm/haiku`, `farm/sonnet` and `farm/opus`, and `farm/` any id that is named.

A prompt is one task of `farmhand run`, which gets it as JSON on its stdin. So llm may live in an environment of its
own, and the key stays with Farmhand.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm
from llm.parts import AttachmentPart, TextPart
from pydantic import Field

#: Farmhand's short names. Others are named in LLM_FARMHAND_MODELS, separated by commas.
MODELS = ("haiku", "sonnet", "opus")
FILES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"})
_MISSING = "install it (pipx install farmhand), or set LLM_FARMHAND_COMMAND"


@llm.hookimpl
def register_models(register: Any) -> None:
    """Register the models."""
    more = os.environ.get("LLM_FARMHAND_MODELS", "").split(",")
    for name in dict.fromkeys([*MODELS, *filter(None, map(str.strip, more))]):
        register(FarmModel(name))


class FarmModel(llm.Model):
    """A model of the farm."""

    can_stream = True
    supports_schema = True
    attachment_types = FILES

    class Options(llm.Options):
        """What a task can be given beside its prompt."""

        max_tokens: int | None = Field(default=None, ge=1, description="Longest answer, in tokens")
        max_usd: float | None = Field(default=None, gt=0, description="What the task may cost, in US$")
        economy: bool | None = Field(default=None, description="Half the price; an answer may take up to a day")

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = f"farm/{name}"

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the answer, as it comes if `stream`; note the tokens and the cost. Raise llm.ModelError."""
        task = self._task(prompt)
        argv = [
            *_command(),
            "run",
            "--json",
            *(["--events"] if stream and not prompt.schema else []),
            "--fallback",
            "none",
            "--task",
            "-",
        ]
        shown = coming = ""
        result: dict[str, Any] = {}
        for line in _lines(argv, json.dumps(task)):
            kind = line.get("type")
            if kind == "restart":
                coming = ""
            elif kind == "text":
                coming += str(line.get("text") or "")
                if len(coming) > len(shown) and coming.startswith(shown):
                    yield coming[len(shown) :]
                    shown = coming
            else:
                result = line
        if (problem := result.get("error")) or result.get("state") != "succeeded":
            raise llm.ModelError(_one_line(problem or {"message": f"the task is {result.get('state', 'gone')}"}))
        found = result.get("structured")
        answer = str(result.get("text") or "") if found is None else json.dumps(found, ensure_ascii=False)
        if not answer.startswith(shown):
            raise llm.ModelError(
                f"farmhand: the answer was begun anew, so what was shown is not it (task {result.get('id')})"
            )
        _note(result, response)
        if len(answer) > len(shown):
            yield answer[len(shown) :]

    def _task(self, prompt: Any) -> dict[str, Any]:
        """Return the task of a prompt: its last turn, and those before. Raise llm.ModelError."""
        options = prompt.options
        task: dict[str, Any] = {"model": self.name, "labels": {"client": "llm"}, "schema": prompt.schema or None}
        task |= {name: getattr(options, name) for name in ("max_tokens", "max_usd", "economy")}
        system: list[str] = []
        turns: list[tuple[str, list[str], list[dict[str, str]]]] = []
        for message in prompt.messages:
            texts, files = _parts(message)
            if message.role == "system":
                system += [text for text in texts if text not in system]
            elif turns and turns[-1][0] == message.role:
                turns[-1][1].extend(texts)
                turns[-1][2].extend(files)
            else:
                turns.append((message.role, texts, files))
        if not turns:
            raise llm.ModelError("farmhand: the prompt is empty")
        if [role for role, _, _ in turns] != (["user", "assistant"] * len(turns))[: len(turns)] or len(turns) % 2 == 0:
            raise llm.ModelError("farmhand: a conversation is turns of user and model, and ends with the user's")
        if system:
            task["system"] = "\n\n".join(system)
        said = [{"prompt": "\n\n".join(texts), "files": files} for _, texts, files in turns[::2]]
        answers = ["\n\n".join(texts) for _, texts, _ in turns[1::2]]
        history = [asked | {"answer": answer} for asked, answer in zip(said, answers, strict=False)]
        return {
            name: value for name, value in (task | said[-1] | {"history": history}).items() if value not in (None, [])
        }


def _parts(message: Any) -> tuple[list[str], list[dict[str, str]]]:
    texts: list[str] = []
    files: list[dict[str, str]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            texts += filter(None, [part.text])
        elif isinstance(part, AttachmentPart) and part.attachment is not None:
            files.append(_file(part.attachment))
        elif "Tool" in type(part).__name__:
            raise llm.ModelError("farmhand: a task has no tools of llm's, and this conversation has used one")
    return texts, files


def _file(attachment: Any) -> dict[str, str]:
    try:
        data, kind = attachment.content_bytes(), attachment.resolve_type()
    except Exception as error:  # a missing file, or whatever its HTTP client raises
        raise llm.ModelError(f"farmhand: an attachment cannot be read: {' '.join(str(error).split())}") from None
    name = os.path.basename(attachment.path or "")
    return {"media_type": kind, "data": base64.b64encode(data).decode()} | ({"name": name} if name else {})


def _command() -> list[str]:
    """Return the words that start farmhand. Raise llm.ModelError."""
    if given := os.environ.get("LLM_FARMHAND_COMMAND", "").strip():
        try:
            return shlex.split(given)
        except ValueError as error:
            raise llm.ModelError(f"farmhand: LLM_FARMHAND_COMMAND is no command: {error}") from None
    found = shutil.which("farmhand") or shutil.which("farmhand", path=str(Path.home() / ".local/bin"))
    if found is None:
        raise llm.ModelError(f"farmhand: the command is not found ({_MISSING})")
    return [found]


def _lines(argv: list[str], task: str) -> Iterator[dict[str, Any]]:
    """Run farmhand and yield its objects. It is told to stop if its reader leaves. Raise llm.ModelError."""
    # Not pipes: nothing waits for what the other has not read.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as given, tempfile.TemporaryFile() as said:
        given.write(task)
        given.seek(0)
        try:
            process = subprocess.Popen(argv, stdin=given, stdout=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise llm.ModelError(f"farmhand: {argv[0]}: {error.strerror} ({_MISSING})") from None
        assert process.stdout is not None  # noqa: S101  (it is a pipe)
        whole = False
        try:
            for line in process.stdout:
                value = None
                with contextlib.suppress(ValueError):
                    value = json.loads(line)
                if isinstance(value, dict):
                    whole = whole or "type" not in value
                    yield value
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            process.stdout.close()
        if not whole:
            said.seek(0)
            last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit {process.returncode}"]
            raise llm.ModelError(f"farmhand: {last[0].removeprefix('farmhand: ')[:500]}")


def _one_line(error: Any) -> str:
    known = error if isinstance(error, dict) else {"message": error}
    hint = f" ({known['hint']})" if known.get("hint") else ""
    return " ".join(f"farmhand: {known.get('message') or known.get('code')}{hint}".split())


def _note(result: dict[str, Any], response: Any) -> None:
    """Write down what the answer took: llm's log has the tokens, and what they cost beside them."""
    usage = result.get("usage") or {}
    sent = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    details = {name: usage[name] for name in sent[1:] if usage.get(name)} | {"cost_usd": result.get("cost_usd")}
    response.set_usage(
        input=sum(int(usage.get(name) or 0) for name in sent), output=usage.get("output_tokens"), details=details
    )
    if result.get("model"):
        response.set_resolved_model(str(result["model"]))
    response.response_json = {name: result.get(name) for name in ("id", "host", "engine", "stop_reason", "cost_usd")}
