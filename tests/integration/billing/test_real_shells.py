"""The real bash, zsh, fish and sh agree with what `find` reads off their files: each kind of shell, each variable.

Each case is a home. `find` only reads it; the shells run it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.billing import find
from farmhand.billing.names import KEY, TOKEN
from farmhand.billing.outcome import absent, present
from farmhand.billing.wanted import Wanted
from farmhand.billing.store import Store
from farmhand.wire.keys import fingerprint
from tests.support.homes import HOMES, ONE
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


#: What cannot be taken out of these without changing what else stands there.
LEFT = {"eval"}


@pytest.mark.parametrize("name", HOMES)
async def test_nothing_metered_is_left_and_everything_can_be_taken_back(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    home.stub()
    home.put(HOMES[name])
    store = Store(tmp_path / "state")
    wanted = Wanted(
        home.path, home.path / "repos.env", home.environment, ask=False, chosen=fingerprint(ONE), date="2026-11-24"
    )
    before = {file: (home.path / file).read_bytes() for file in HOMES[name]}
    had_key = (home.path / "repos.env").exists()
    if had_key:
        (home.path / "repos.env").chmod(0o600)
    done = present(wanted, store, write=True)
    assert bool(done["left"]) == (name in LEFT), done["left"]
    if name not in LEFT:
        assert not done["billing"]["metered"]
        for environment in await at_once([home.gets(shell, mode) for shell, mode in KINDS]):
            assert not environment.get(KEY)
            assert not environment.get(TOKEN)
    assert not present(wanted, store, write=True)["changed"]
    back = absent(store, write=True)
    assert (back["left"], back["changed"]) == ([], done["changed"])
    assert {file: (home.path / file).read_bytes() for file in HOMES[name]} == before
    assert (home.path / "repos.env").exists() == had_key
    assert not store.directory.exists()


@pytest.mark.parametrize(
    "line",
    [
        "export $(grep -v '^#' ~/.env | xargs)\n",
        'while read -r line; do export "$line"; done < ~/.env\n',
        'for line in $(cat "$HOME/.env"); do export "$line"; done\n',
        'eval "$(sed "s/^/export /" ~/.env)"\n',
        "if uname | grep -q .; then export ANTHROPIC_API_KEY={key}; fi\n",
        'set -a; eval "$(cat ~/.env)"; set +a\n',
    ],
)
async def test_what_only_running_it_would_tell_is_not_missed(tmp_path: Path, line: str) -> None:
    home = Home(tmp_path / "home")
    home.stub()
    home.put({".bashrc": line.replace("{key}", ONE), ".env": f"A=1\nANTHROPIC_API_KEY={ONE}\n"})
    assert (await home.gets("bash", "interactive"))[KEY] == ONE
    wanted = Wanted(home.path, home.path / "repos.env", home.environment, ask=False, date="2026-11-24")
    [verdict] = [v for v in find(home.path, {}, ask=False).verdicts if v.kind == "bash interactive"]
    assert (verdict.credential, verdict.fingerprint, verdict.certain) == (KEY, fingerprint(ONE), False)
    done = present(wanted, Store(tmp_path / "state"), write=True)
    assert not done["billing"]["metered"]
    assert KEY not in await home.gets("bash", "interactive")
    assert (home.path / ".env").read_text() == f"A=1\nANTHROPIC_API_KEY={ONE}\n"
