"""Where keys are kept: every other byte stays, both keys survive, and what cannot be edited safely is refused."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from farmhand.core.errors import WireError
from farmhand.rotation.sources import FileSource, KeyringSource, Slots, open_source, with_slots
from tests.unit.rotation.doubles import NEW, OLD

NAME = "ANTHROPIC_API_KEY"


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}={OLD}\n",
        f"{NAME}={OLD}",
        f"A=1\n\n# {OLD} is mine\n  export {NAME}='{OLD}'  # since May\nB='x y'\n",
        f'\ufeff{NAME}="{OLD}"\r\nB=2\r\n',
        f"# {NAME}=commented\n{NAME}_OTHER=x\n{NAME}={OLD} # {OLD}\n",
    ],
)
def test_there_and_back_byte_for_byte(text: str) -> None:
    staged = with_slots(text, NAME, Slots(OLD, next=NEW))
    assert f"{NAME}_NEXT={NEW}" in staged
    switched = with_slots(staged, NAME, Slots(NEW, previous=OLD))
    assert f"{NAME}_PREVIOUS={OLD}" in switched
    assert f"{NAME}_NEXT" not in switched
    value = text.index(OLD, text.index("=", text.rindex(f"{NAME}=")))
    assert with_slots(switched, NAME, Slots(NEW)) == text[:value] + NEW + text[value + len(OLD) :]
    assert with_slots(switched, NAME, Slots(OLD)) == text


def key_file(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    path.chmod(0o600)
    return path


def test_a_link_stays_a_link_and_the_mode_stays(tmp_path: Path) -> None:
    real = key_file(tmp_path / "real.env", f"{NAME}={OLD}\n")
    real.chmod(0o400)
    link = tmp_path / "repos.env"
    link.symlink_to(real)
    source = open_source(f"file:{link}")
    source.write(Slots(NEW, previous=OLD))
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o400
    assert source.read() == Slots(NEW, None, OLD)
    assert source.place == open_source(f"file:{real}#{NAME}").place


def test_what_a_crash_left_half_written_goes(tmp_path: Path) -> None:
    path = key_file(tmp_path / "repos.env", f"{NAME}={OLD}\n")
    left = key_file(tmp_path / ".repos.env.farmhand-rotate", f"{NAME}={NEW}\n")
    FileSource(str(path), NAME).read()
    assert not left.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{NAME}=$(pass show key)\n", "line 1: expansions"),
        (f"{NAME}={OLD}\n{NAME}={OLD}\n", "line 2: .* is set a second time"),
        (f"{NAME} = {OLD}\n", "no space before"),
        ("A=1\n", f"sets no {NAME}"),
        (f"{NAME}=nonsense\n", "does not start with sk-ant-"),
        (f"{NAME}={OLD}\n{NAME}_NEXT=nonsense\n", f"{NAME}_NEXT: .* does not start with"),
    ],
)
def test_refused_and_left_byte_for_byte(tmp_path: Path, text: str, why: str) -> None:
    path = key_file(tmp_path / "repos.env", text)
    with pytest.raises(WireError, match=why) as caught:
        FileSource(str(path), NAME).read()
    assert OLD not in str(caught.value)
    assert path.read_bytes() == text.encode()


def test_a_file_that_others_can_read_and_one_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path / "repos.env", f"{NAME}={OLD}\n")
    path.chmod(0o644)
    with pytest.raises(WireError, match="others could read it"):
        FileSource(str(path), NAME).read()
    path.chmod(0o600)
    somebody = os.geteuid() + 1
    monkeypatch.setattr("os.geteuid", lambda: somebody)
    with pytest.raises(WireError, match="belongs to another user"):
        FileSource(str(path), NAME).read()


@pytest.mark.parametrize("source", ["env:NAME", "command:pass show x", "file:", "keyring:x", "nonsense"])
def test_what_cannot_be_written_to(source: str) -> None:
    with pytest.raises(WireError) as caught:
        open_source(source)
    assert caught.value.code == "not_configured"


class Stopped(BaseException):
    """A crash between two entries of the keyring."""


class FakeKeyring(types.ModuleType):
    """A keyring in memory that dies at its nth change."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.entries = {("farm", "me"): OLD}
        self.left = 99

    def _change(self) -> None:
        if not self.left:
            raise Stopped
        self.left -= 1

    def get_password(self, service: str, user: str) -> str | None:
        return self.entries.get((service, user))

    def set_password(self, service: str, user: str, value: str) -> None:
        self._change()
        self.entries[service, user] = value

    def delete_password(self, service: str, user: str) -> None:
        self._change()
        del self.entries[service, user]


@pytest.mark.parametrize("stop", range(4))
def test_a_keyring_loses_no_key_and_is_completed_by_doing_it_again(monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    ring = FakeKeyring()
    monkeypatch.setitem(sys.modules, "keyring", ring)
    source = KeyringSource("farm", "me")
    source.write(Slots(OLD, next=NEW))
    ring.left = stop
    try:
        source.write(Slots(NEW, previous=OLD))
    except Stopped:
        assert {OLD, NEW} <= set(ring.entries.values())
    ring.left = 99
    source.write(Slots(NEW, previous=OLD))
    assert source.read() == Slots(NEW, None, OLD)
    source.write(Slots(NEW))
    assert ring.entries == {("farm", "me"): NEW}
