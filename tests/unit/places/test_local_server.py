from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from farmhand.core.errors import WireError
from farmhand.core.keysource import read_key
from farmhand.places.local_server import KeyServer

KEY = "sk-ant-test-keyserver-000000000"


def test_the_source_yields_the_key_while_it_is_there_and_does_not_hold_it(tmp_path: Path) -> None:
    with KeyServer(KEY, tmp_path) as server:
        assert read_key(server.source) == KEY
        assert read_key(server.source) == KEY
        assert KEY not in server.source
        socket = tmp_path / "key.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert not socket.exists()
    with pytest.raises(WireError):
        read_key(server.source)


def test_a_stranger_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeyServer(KEY, tmp_path) as server:
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
        with pytest.raises(WireError, match="is empty"):
            read_key(server.source)
