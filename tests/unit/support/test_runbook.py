"""What is read out of a runbook, and what does not go unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import runbook
from tests.support.runbook import Runbook

DOCUMENT = """# Operations

## A thing breaks

1. Look, with `farmhand status`, whether it is so (`--json` for programs). `farmhand.new` is no command:

   ```
   ssh-keygen -R ADDRESS
   sudo anything --at all
   ```
2. | it says | do |
   |---|---|
   | `broken` | `farmhand flush --drop ID`,
   twice |

## Another

`farmhand doctor`
"""


@pytest.fixture(autouse=True)
def _document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "operations.md").write_text(DOCUMENT, encoding="utf-8")
    monkeypatch.setattr(runbook, "DOCUMENT", tmp_path / "operations.md")


def test_code_blocks_and_commands_in_the_text_are_read_and_no_other_section() -> None:
    found = runbook.commands(runbook.section("A thing breaks", DOCUMENT))
    assert found == ["ssh-keygen -R ADDRESS", "sudo anything --at all", "farmhand status", "farmhand flush --drop ID"]


def test_a_runbook_that_is_followed_to_its_end() -> None:
    with Runbook("A thing breaks") as book:
        assert book.command("farmhand status") == "farmhand status"
        assert book.command("ssh-keygen", ADDRESS="203.0.113.7") == "ssh-keygen -R 203.0.113.7"
        assert book.command("farmhand flush", ID="a1") == "farmhand flush --drop a1"
        assert book.command("sudo").endswith("--at all")
        book.says("`farmhand flush --drop ID`, twice")


def test_what_is_not_followed_is_an_error() -> None:
    book = Runbook("A thing breaks")
    book.command("farmhand status")
    book.skip("ssh-keygen")
    with pytest.raises(AssertionError, match=r"nobody has tried: \['sudo anything --at all', 'farmhand flush"):
        book.__exit__(None, None, None)


def test_what_is_not_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no section 'A thing mends'"):
        Runbook("A thing mends")
    book = Runbook("A thing breaks")
    with pytest.raises(AssertionError, match="no command 'farmhand doctor'"):
        book.command("farmhand doctor")
    with pytest.raises(AssertionError, match="does not say 'three times'"):
        book.says("three times")
    with pytest.raises(AssertionError, match="put in place of the words"):
        book.command("ssh-keygen")
