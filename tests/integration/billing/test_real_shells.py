"""The real bash, zsh, fish and sh agree with what `find` reads off their files: each kind of shell, each variable.

Each case is a home. `find` only reads it; the shells run it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.billing import find
from farmhand.billing.names import KEY, TOKEN
from farmhand.wire.keys import fingerprint
from tests.support.homes import HOMES
from tests.support.shells import KINDS, Home, at_once


def found(home: Home) -> dict[tuple[str, str], dict[str, str]]:
    """By kind of shell, the fingerprints that `find` gives."""
    report = find(home.path, home.environment, home.project, ask=False)
    assert not report.problems
    assert all(verdict.certain for verdict in report.verdicts)
    return {(v.shell, v.mode): {v.credential: v.fingerprint} if v.fingerprint else {} for v in report.verdicts}


@pytest.mark.parametrize("name", HOMES)
async def test_every_kind_of_shell_agrees(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    home.stub()
    home.put(HOMES[name])
    expected = found(home)
    got = await at_once([home.gets(shell, mode) for shell, mode in KINDS])
    for kind, environment in zip(KINDS, got, strict=True):
        used = next((name for name in (TOKEN, KEY) if environment.get(name)), None)
        real = {used: fingerprint(environment[used])} if used else {}
        assert expected[kind] == real, " ".join(kind)
