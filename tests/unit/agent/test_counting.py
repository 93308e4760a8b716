"""The count of tasks' tokens: on which key it is asked for, and what comes back wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farmhand.agent import counting
from farmhand.agent.counting import MOST, TaskCounter
from farmhand.agent.pots import Pots
from farmhand.agent.store.ledger import Ledger
from farmhand.core.errors import FarmhandError
from farmhand.core.task import Task
from farmhand.meter.errors import ApiError
from farmhand.meter.grants import Grant, Key

KEY = Key("sk-ant-test-count-000000000")
TASK = Task(id="t", prompt="p", system="s", schema={"type": "object"}, max_tokens=7)


class FakeMeter:
    """Answers with `said`, or raises it."""

    def __init__(self, said: bytes | Exception = b'{"input_tokens": 9}') -> None:
        self.said = said
        self.asked: list[tuple[Grant, str, dict[str, Any]]] = []

    @asynccontextmanager
    async def send(self, grant: Grant, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Any]:
        self.asked.append((grant, path, msgspec.json.decode(body)))
        if isinstance(self.said, Exception):
            raise self.said
        pieces = [self.said, b""]

        class Exchange:
            async def piece(self) -> bytes:
                return pieces.pop(0)

        yield Exchange()


@pytest.fixture
def pots(tmp_path: Path) -> Iterator[Pots]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        yield Pots(ledger)


async def test_what_would_be_sent_is_counted_on_the_key_of_the_call(pots: Pots) -> None:
    meter = FakeMeter()
    found = await TaskCounter(meter, pots).count([TASK], KEY)  # type: ignore[arg-type]
    assert found == [{"id": "t", "model": "claude-haiku-5-5", "input_tokens": 9}]
    [(grant, path, body)] = meter.asked
    assert (grant.key, path) == (KEY, "/v1/messages/count_tokens")
    assert set(body) == {"model", "messages", "system", "thinking", "tools", "tool_choice"}
    assert pots[""].keys.default is None


@pytest.mark.parametrize(
    ("said", "tasks", "key", "code"),
    [
        (b"{}", [TASK], KEY, "api_error"),
        (b"no json", [TASK], KEY, "api_error"),
        (ApiError("authentication_error", f"no {KEY.reveal()}"), [TASK], KEY, "authentication_error"),
        (b"{}", [TASK], None, "no_key"),
        (b"{}", [TASK] * (MOST + 1), KEY, "invalid_task"),
        (b"{}", [Task(id="t", prompt="p", tools=("Bash",))], KEY, "invalid_task"),
    ],
)
async def test_failures_have_a_code_and_no_key(
    pots: Pots, said: bytes | Exception, tasks: list[Task], key: Key | None, code: str
) -> None:
    with pytest.raises(FarmhandError) as caught:
        await TaskCounter(FakeMeter(said), pots).count(tasks, key)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert KEY.reveal() not in str(caught.value)


async def test_a_silent_api_is_not_waited_for(pots: Pots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "COUNT_S", 0.0)
    with pytest.raises(FarmhandError) as caught:
        await TaskCounter(FakeMeter(TimeoutError()), pots).count([TASK], KEY)  # type: ignore[arg-type]
    assert caught.value.code == "api_unreachable"


async def test_the_pot_of_a_task_has_the_key_where_the_call_brings_none(pots: Pots) -> None:
    pots.bring("plan", KEY, "", None)
    meter = FakeMeter()
    await TaskCounter(meter, pots).count([msgspec.structs.replace(TASK, pot="plan")], None)  # type: ignore[arg-type]
    assert meter.asked[0][0].key == KEY
    with pytest.raises(FarmhandError, match="no key"):
        await TaskCounter(meter, pots).count([TASK], None)  # type: ignore[arg-type]
