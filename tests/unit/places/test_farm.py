from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.places import farm
from farmhand.places.base import PlaceSettings


def test_the_environment_is_stripped_of_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ANTHROPIC_API_KEY": "x",
        "CLAUDE_CODE_OAUTH_TOKEN": "y",
        "OTHER": "sk-ant-test-zzzzzzzzzzzz",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KEPT", "yes")
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "play.yml").write_text("[]")
    private = tmp_path / "private"
    private.mkdir()
    environment = farm.prepare(tmp_path / "play.yml", private, PlaceSettings(project_dir=tmp_path)).config.env
    assert environment["KEPT"] == "yes"
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OTHER"} & set(environment)
