"""What a rotation remembers: private, whole after a crash, and without a key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farmhand.core.errors import WireError
from farmhand.rotation.state import Memory, State, state_dir
from tests.unit.rotation.doubles import NEW_PRINT, OLD_PRINT


def test_private_and_read_back(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path / "a" / "rotation"))
    assert memory.load() is None
    state = State("staged", OLD_PRINT, NEW_PRINT, 1.0, 1.0, hosts={"farm1": {"state": "switched", "why": ""}})
    memory.save(state)
    assert memory.load() == state
    assert (tmp_path / "a" / "rotation").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "rotation" / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"step": "nowhere"}', "\x00", pytest.param("[" * 200_000, id="deep")]
)
def test_a_broken_state_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(WireError, match="move it away, then look at the keys") as caught:
        Memory(str(tmp_path)).load()
    assert caught.value.code == "not_configured"


def test_a_state_of_a_later_version_is_read(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path))
    memory.save(State("drained", OLD_PRINT, NEW_PRINT, 1.0, 1.0))
    found = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**found, "more": 1}))
    state = memory.load()
    assert state is not None
    assert state.reached("verified")
    assert not state.reached("retired")


def test_one_at_a_time(tmp_path: Path) -> None:
    one, two = Memory(str(tmp_path)), Memory(str(tmp_path))
    with one.lock(), pytest.raises(WireError, match=r"another rotation of this key runs \(process \d+\)"), two.lock():
        pass
    with two.lock():
        pass


def test_first_seen_is_kept(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path))
    assert memory.first_seen(OLD_PRINT, 5.0) == 5.0
    assert memory.first_seen(NEW_PRINT, 6.0) == 6.0
    assert memory.first_seen(OLD_PRINT, 7.0) == 5.0


def test_where_it_is() -> None:
    environ = {"XDG_STATE_HOME": "/s"}
    assert state_dir("file:/home/me/repos.env#X", usual=True, environ=environ) == "/s/farmhand/rotation"
    one, two = (state_dir(place, usual=False, environ=environ) for place in ("file:/a#X", "file:/b#X"))
    assert one != two
    assert one.startswith("/s/farmhand/rotation-")
