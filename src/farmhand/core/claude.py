"""The lean invocation of the real claude CLI for one task, with the prompt passed as data.

It is shared by the farm host's engine and farmhand.subscription.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from farmhand.core.attachments import PDF
from farmhand.core.task import Attachment

#: The system prompt of a task that has none of its own.
SYSTEM = "Answer the user's task. Be brief and exact."
#: CLI switches set on every call: no self-update, no telemetry, no attaching of files named in a prompt, no retries.
#: Measured with 2.1.197 and 2.1.330.
SWITCHES = {
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    "CLAUDE_CODE_DISABLE_THINKING": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}


def login_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the login file of the CLI 2.1: `~/.claude/.credentials.json`, unless CLAUDE_CONFIG_DIR moves it."""
    directory = environ.get("CLAUDE_CONFIG_DIR")
    return (Path(directory) if directory else Path(os.path.expanduser("~/.claude"))) / ".credentials.json"


def arguments(
    program: str,
    *,
    model: str,
    system: str = "",
    system_file: Path | None = None,
    tools: tuple[str, ...] = (),
    own_system: bool = False,
) -> list[str]:
    """Return the lean command line. With its flags a text task sends 1.1 KB instead of 76 to 115 (2.1.197).

    `own_system` leaves the CLI's own system prompt in force where `system` is "". `system_file` has it in place of
    `system`.
    """
    argv = [program, "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    argv += ["--include-partial-messages", "--no-session-persistence", "--setting-sources", "", "--strict-mcp-config"]
    argv += ["--disable-slash-commands", "--model", model]
    if system_file is not None:
        argv += ["--system-prompt-file", str(system_file)]
    elif system or not own_system:
        argv += ["--system-prompt", system or SYSTEM]
    return [*argv, "--tools", ",".join(tools)]


def blocks(files: Sequence[Attachment]) -> list[dict[str, Any]]:
    """Return pictures and PDFs as content blocks of the Messages API."""
    return [
        {
            "type": "document" if file.media_type == PDF else "image",
            "source": {"type": "base64", "media_type": file.media_type, "data": file.data},
        }
        for file in files
    ]


def user_message(prompt: str, files: Sequence[Attachment] = ()) -> bytes:
    """Return prompt and files as one user message of stream-json, so that the prompt is treated as data.

    In this form too, the CLI treats a message whose last text begins with `/name` as a command. The blank block after
    the prompt prevents that. The CLI drops the block, so the API gets only the prompt. Measured with 2.1.197 and
    2.1.330.
    """
    content = [*blocks(files), {"type": "text", "text": prompt}, {"type": "text", "text": "\n"}]
    message = {"role": "user", "content": content}
    return msgspec.json.encode({"type": "user", "message": message}) + b"\n"


def messages(task: Any) -> Iterator[dict[str, Any]]:
    """Yield the messages of a task with `history`, `prompt` and `files`, as the Messages API has them."""
    for turn in task.history:
        yield {"role": "user", "content": _content(turn)}
        yield {"role": "assistant", "content": turn.answer}
    yield {"role": "user", "content": _content(task)}


def _content(turn: Any) -> str | list[dict[str, Any]]:
    return [*blocks(turn.files), {"type": "text", "text": turn.prompt}] if turn.files else str(turn.prompt)
