"""What a session asks for, made into tasks."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from farmhand.core.errors import UsageError
from farmhand.core.settings import Settings
from farmhand.mcp_server import tools
from farmhand.mcp_server.intake import TaskIntake


class Here:
    """A session in one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def roots(self) -> list[Path]:
        return [self._root]

    async def progress(self, message: str) -> None: ...

    async def ask_for_more(self, message: str) -> Decimal | None: ...


def together(prompt: str, files: Sequence[str]) -> tuple[str, list[dict[str, str]]]:
    return " ".join([prompt, *(Path(file).read_text() for file in files)]), []


async def task(root: Path, **arguments: Any) -> tuple[str, list[str]]:
    made, notes = await TaskIntake(together).task(Here(root), Settings(), *tools.read("farm_task", arguments))
    return made.prompt, notes


async def batch(root: Path, **arguments: Any) -> tuple[list[str], list[str]]:
    made, notes = await TaskIntake(together).tasks(Here(root), Settings(), *tools.read("farm_batch", arguments))
    return [f"{one.model}: {one.prompt}" for one in made], notes


async def test_a_task_whose_files_are_not_there_is_not_sent_without_them(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only.pem").write_text("x")
    for names in (["*.none"], ["empty"], ["empty/*"], ["*.pem"], ["."]):
        with pytest.raises(UsageError, match="no file is there"):
            await task(tmp_path, prompt="Sum up this file", files=names)
        with pytest.raises(UsageError, match="no file is there"):
            await batch(tmp_path, tasks=["x", {"prompt": "Sum up this file", "files": names}])
    (tmp_path / "a.txt").write_text("red")
    prompt, [note] = await task(tmp_path, prompt="Sum up", files=["*"])
    assert prompt == "Sum up red"
    assert note.endswith("lie elsewhere: only.pem")
    assert (await batch(tmp_path, tasks=[{"prompt": "Sum up", "files": ["*"]}]))[1] == [f"task 1: {note}"]


async def test_a_model_that_is_named_answers_all_requests_of_another_provider(tmp_path: Path) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "theirs.jsonl").write_text(json.dumps(line))
    with pytest.raises(UsageError, match="none of Claude's"):
        await batch(tmp_path, file="theirs.jsonl")
    assert await batch(tmp_path, file="theirs.jsonl", model="sonnet") == (["sonnet: hi"], [])


@pytest.mark.parametrize("wrong", ["", {"prompt": "x", "engine": "cli"}, {"prompt": "x", "max_tokens": 0}, {}])
async def test_a_wrong_task_of_a_list_is_named_by_its_number(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"^task 3: "):
        await batch(tmp_path, tasks=["a", "b", wrong])


async def test_other_calls_go_on_while_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red")
    other = threading.Event()

    def slowly(prompt: str, files: Sequence[str]) -> tuple[str, list[dict[str, str]]]:
        assert other.wait(20), "nothing else was done meanwhile"
        return prompt, []

    async with anyio.create_task_group() as group:
        group.start_soon(
            TaskIntake(slowly).task,
            *(Here(tmp_path), Settings(), *tools.read("farm_task", {"prompt": "x", "files": ["a.txt"]})),
        )
        await anyio.sleep(0.05)
        other.set()
