"""What Ansible's answers are taken for, with a program in its place. The real search is in tests/e2e."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from farmhand.cli.checks.farm import at_rest
from farmhand.core.settings import Settings


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "site.yml").touch()
    (tmp_path / "ansible.cfg").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-xxxxxxxx")
    return tmp_path


def ansible(checkout: Path, **answers: Any) -> None:
    """A program that writes these answers to the directory behind --tree."""
    lines = [f"printf %s '{json.dumps(answer)}' > \"$last/{host}\"" for host, answer in answers.items()]
    program = checkout / "ansible"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\nprintf "%s\\n" "$@" > arguments\nenv > environment\n'
        + "\n".join(lines)
        + "\necho no hosts matched >&2\n"
    )
    program.chmod(0o755)


def test_each_host_has_its_line(checkout: Path) -> None:
    key = "sk-ant-test-00000000000"
    ansible(checkout, a={"places": []}, b={"places": ["/x", "/y"]}, c={"msg": f"no\nroute {key}"}, other={"places": []})
    a, b, c, d = at_rest(Settings(project_dir=str(checkout)), ["a", "b", "c", "d"]).values()
    assert a.ok
    assert (b.ok, b.detail) == (False, "a key is in /x and 1 more")
    assert (c.ok, c.detail) == (False, "not looked at: no route sk-ant-…[redacted]")
    assert (d.ok, "no such host" in d.detail) == (False, True)
    arguments = (checkout / "arguments").read_text().splitlines()
    assert arguments[:4] == ["farm", "--become", "-m", "farmhand_search"]
    assert "ANTHROPIC" not in (checkout / "environment").read_text()


def test_without_a_checkout_or_an_inventory_it_says_that_nobody_looked(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ansible(checkout)
    [line] = at_rest(Settings(project_dir=str(checkout)), ["a"]).values()
    assert (line.ok, line.detail) == (False, "not looked at: ansible searched no host: no hosts matched")
    monkeypatch.chdir("/")
    [line] = at_rest(Settings(), ["a"]).values()
    assert (line.ok, "not looked at" in line.detail, "project_dir" in line.fix) == (False, True, True)
