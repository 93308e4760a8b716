from __future__ import annotations

import stat
from pathlib import Path

import pytest

from farmhand.core.errors import UsageError
from farmhand.offline import conversations

PASTED = "sk-ant-test-pasted-0123456789abcdef"


def test_no_key_is_kept_and_no_directory_is_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    task = {"prompt": f"ask {PASTED}", "system": f"be {PASTED}", "model": "haiku"}
    with conversations.opened("barn") as kept:
        kept.add(task, {"text": f"say {PASTED}", "cost_usd": 0.5})
        conversations.save(kept)
    with conversations.opened("barn") as kept:
        [turn] = kept.turns
        assert (turn.prompt, turn.answer, kept.model) == ("ask sk-ant-…[redacted]", "say sk-ant-…[redacted]", "haiku")
    where = conversations.directory()
    assert PASTED not in (where / "barn.json").read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (where, where.parent)] == [0o700, 0o700]
    with pytest.raises(UsageError, match="API key stands in --conversation"), conversations.opened(PASTED):
        pass
