"""The verb `farmhand mcp`."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from farmhand.cli import mcp
from farmhand.core import settings
from farmhand.core.errors import NotConfigured


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "find_spec", lambda _name: None)
    with pytest.raises(NotConfigured, match="the Python package mcp is not installed") as missing:
        mcp.main(None)
    assert missing.value.exit_code == 3
    assert missing.value.hint.endswith("-m pip install mcp")


class _Started(BaseException):
    pass


def test_the_sessions_credentials_are_gone_and_the_farms_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-ant-test-0123456789abcdefghij"
    given = {"HOME": "/h", "ANTHROPIC_API_KEY": key, "CLAUDECODE": "1", "OTHER": key, "FARM_KEY": key}
    given |= {"FARMHAND_KEY_SOURCE": "env:FARM_KEY"}
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(settings, "load", lambda _config: settings.Settings(key_source="env:FARM_KEY"))
    found: list[dict[str, str]] = []

    def execve(_program: str, _argv: list[str], environ: dict[str, str]) -> NoReturn:
        found.append(environ)
        raise _Started

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(_Started):
        mcp.main(None)
    assert found == [{"HOME": "/h", "FARM_KEY": key, "FARMHAND_KEY_SOURCE": "env:FARM_KEY"}]
