from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from farmhand.core import files
from farmhand.core.errors import NotConfigured, UsageError
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


def test_a_turn_is_kept_though_the_directory_is_gone_and_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with conversations.opened("barn") as kept:
        kept.add({"prompt": "one"}, {"text": "answer"})
        shutil.rmtree(conversations.directory())
        conversations.save(kept)
        assert (conversations.directory() / "barn.json").exists()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files, "replace", full)
        with pytest.raises(NotConfigured, match=r"No space left on device \(make room"):
            conversations.save(kept)
