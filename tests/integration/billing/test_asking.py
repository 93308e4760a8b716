"""What `find` says of homes is what their real shells do: each kind of shell, each line.

The truth is obtained without the product (tests/support/dotfiles.py). A line is tried by what it does: without it, the
credential no longer arrives.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import pytest

from farmhand.billing import Report, Source, find
from farmhand.billing.names import BASE_URLS, CLOUDS, INDIRECT, KEY, TOKEN
from farmhand.core.keys import fingerprint
from tests.support.claude import claude_binary
from tests.support.dotfiles import KINDS, ONE, Case, Dotfiles, cases, side_by_side
from tests.support.shells import Home

GIVEN = cases("homes.json")
OWN = cases("homes_more.json")
DANGEROUS = cases("dangerous.json")
_ORDER = (*CLOUDS, TOKEN, KEY, *INDIRECT)
#: Lines after which nothing of the file is as it was cannot be taken away one by one.
_TAKEN_AWAY = {"fish": "true", "bash": ":", "zsh": ":", "sh": ":"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that another user may enter; pytest's own may not be."""
    made = Path(mkdtemp(prefix="farmhand-test-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def ask(home: Dotfiles, limit_s: float = 30.0) -> Report:
    return find(home.path, home.environ, home.cwd, ask=False, limit_s=limit_s)


def truth(home: Dotfiles) -> dict[str, dict[str, str]]:
    """By kind of shell, what a real one gives to claude."""
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda kind: home.truth(*kind), KINDS)
    return {" ".join(kind): each for kind, each in zip(KINDS, found, strict=True)}


@pytest.mark.parametrize("case", side_by_side([*GIVEN, *OWN]), ids=lambda case: case.name)
def test_every_verdict_and_every_line_is_the_shells_own(directory: Path, case: Case) -> None:
    home = Dotfiles(directory, case)
    report = ask(home)
    real = truth(home)
    # A shell that has nothing to read is not asked: it gives what the session has.
    for kind in real.keys() - {verdict.kind for verdict in report.verdicts}:
        assert real[kind].keys() <= case.env.keys(), kind
    assert any(verdict.shell == "bash" for verdict in report.verdicts)
    for verdict in report.verdicts:
        got = real[verdict.kind]
        used = next((name for name in _ORDER if name in got), None)
        said = verdict.credential if verdict.credential in _ORDER else None
        assert said == used, f"{verdict.kind}: {verdict}"
        assert verdict.metered == bool(got), f"{verdict.kind}: {verdict}"
        if used in (KEY, TOKEN):
            assert verdict.fingerprint == fingerprint(got[used])
        assert bool(verdict.base_url) == any(name in got for name in BASE_URLS)
        reaching = {source.name for source in report.reaching if verdict.kind in source.shells}
        assert reaching == set(got), verdict.kind
    for source in report.reaching if len(case.parts) > 1 else []:  # none comes from a home beside it
        assert source.location.path
        name = str(source.location.path.relative_to(home.path))
        assert any(part.has(name) and {kind.split()[0] for kind in source.shells} <= part.shells for part in case.parts)
    for (kind, name), sources in by_kind(report).items():
        check_lines(home, kind, name, sources)


def by_kind(report: Report) -> dict[tuple[str, str], list[Source]]:
    """What reaches one kind of shell by name: the first kind of those that share their sources."""
    found: dict[tuple[str, str], list[Source]] = {}
    seen: set[tuple[str, ...]] = set()
    for verdict in report.verdicts:
        for name in {source.name for source in report.reaching}:
            sources = [each for each in report.reaching if each.name == name and verdict.kind in each.shells]
            key = (name, verdict.shell, *(str(each) for each in sources))
            if sources and key not in seen:
                seen.add(key)
                found[verdict.kind, name] = sources
    return found


def check_lines(home: Dotfiles, kind: str, name: str, sources: list[Source]) -> None:
    """Without these lines, the rest of the files as they are, the credential does not arrive."""
    shell, _, mode = kind.partition(" ")
    here = [each.location for each in sources if each.location.path]
    assert here or name in home.case.env, f"{name} comes from nowhere in {kind}"
    before: dict[Path, str] = {}
    for location in here:
        path, number = location.path, location.line
        assert path is not None
        assert path.is_relative_to(home.path)
        before.setdefault(path, path.read_text())
        lines = path.read_text().split("\n")
        assert 0 < number <= len(lines), str(location)
        line = lines[number - 1]
        assert line.strip(), str(location)
        assert name in line or re.search(r"[$`(]|\beval\b|\bsource\b|\bexport\b|alias|abbr|set ", line), line
        continued = line.endswith("\\") or (number > 1 and lines[number - 2].endswith("\\"))
        lines[number - 1] = re.sub(rf"{name}=\S*", "", line) if continued else _TAKEN_AWAY[shell]
        if path.name == "fish_variables":
            lines[number - 1] = "#"
        path.write_text("\n".join(lines))
    broken = [path for path in before if path.suffix != "" or path.name.startswith(".") if not parses(path, shell)]
    try:
        if not broken:
            assert name not in arrives(home, shell, mode) or name in home.case.env, f"{kind}: {here}"
    finally:
        for path, text in before.items():
            path.write_text(text)


def arrives(home: Dotfiles, shell: str, mode: str) -> dict[str, str]:
    """As the truth; nothing where claude is no longer started: its line was the one that was taken away."""
    try:
        return home.truth(shell, mode)
    except AssertionError:
        return {}


def parses(path: Path, shell: str) -> bool:
    if path.name == "fish_variables":
        return True
    return subprocess.run([shell, "-n", str(path)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("case", DANGEROUS, ids=lambda case: case.name)
def test_dangerous_start_up_files_end_leave_nothing_and_are_told_truthfully(directory: Path, case: Case) -> None:
    home = Dotfiles(directory, case)
    report = ask(home, limit_s=5.0)
    assert left_over(home) == []
    for verdict in report.verdicts:
        at = verdict.stopped_at.replace(f"{home.path}/", "")
        said = f"{verdict.billed} {at}".strip()
        assert said == case.expect.get(verdict.kind, "none"), f"{verdict}"
    assert report.certain == (not any(each.startswith("unknown") for each in case.expect.values()))
    starts = home.path / "started"
    if starts.exists():  # each kind that reads the file has run it once: the trace is no second run
        assert len(starts.read_text().splitlines()) == 3


def left_over(home: Dotfiles) -> list[str]:
    """What still runs of all that was started in this home."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environ = (process / "environ").read_bytes()
                if b"FARMHAND_ASKING=1" in environ and f"HOME={home.path}".encode() in environ:
                    found.append((process / "cmdline").read_bytes().decode().replace("\0", " "))
            except OSError:
                continue
    return found


def in_session(leader: str) -> list[str]:
    """The processes of a session that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
            if session == leader and state not in "ZX":
                found.append(stat.parent.name)
    return found


def test_a_password_manager_is_asked_once_and_it_is_said(directory: Path) -> None:
    bash = 'export ANTHROPIC_API_KEY="$(op read op://Private/Anthropic/key)"\n'
    fish = "set -gx ANTHROPIC_API_KEY (op read op://Private/Anthropic/key)\n"
    files = {".bashrc": bash, ".bash_profile": ". ~/.bashrc\n", ".zshenv": bash, ".config/fish/config.fish": fish}
    home = Dotfiles(directory, Case("op", {**files, ".profile": 'eval "$(age -d ~/secrets)"\n', "secrets": "x\n"}))
    report = ask(home)
    told = {verdict.kind: verdict.billed for verdict in report.verdicts}
    # Also where /etc/profile sets PATH anew for a login shell.
    assert {billed for kind, billed in told.items() if not kind.startswith("sh ")} == {"api_key"}
    calls = (home.path / ".calls").read_text().splitlines()
    assert calls.count("op read op://Private/Anthropic/key") == 1
    assert "op read op://Private/Anthropic/key" in report.asked
    assert secrets_of(os.getpid()) == []


def test_a_prompt_that_nobody_answers_appears_once_and_nothing_is_green(directory: Path) -> None:
    line = 'export ANTHROPIC_API_KEY="$(op read op://x/y)"\n'
    home = Dotfiles(directory, Case("waits", {".bashrc": line, ".zshenv": line}))
    (home.bin / "op").write_text('#!/bin/sh\necho "$*" >>"$HOME/.calls"\nsleep 60\n')
    begun = time.monotonic()
    report = ask(home, limit_s=3.0)
    assert time.monotonic() - begun < 60
    assert (home.path / ".calls").read_text() == "read op://x/y\n"
    told = {verdict.kind: verdict for verdict in report.verdicts}
    for kind in ("bash interactive", "zsh login", "zsh interactive", "zsh login interactive"):
        assert told[kind].billed == "unknown", told[kind]
        assert told[kind].stopped_at.endswith(("/.bashrc:1", "/.zshenv:1"))
    assert not report.certain
    assert left_over(home) == []


def test_shells_run_as_the_user_whose_files_they_are(directory: Path) -> None:
    home = Dotfiles(directory, Case("who", {".bashrc": "id -u >~/who; echo $FARMHAND_ASKING >>~/who; tty >>~/who\n"}))
    ask(home)
    assert (home.path / "who").read_text().split("\n")[:3] == [str(home.uid), "1", "not a tty"]
    assert (home.path / "who").stat().st_uid == home.uid


def test_nobody_s_files_are_run_by_somebody_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Dotfiles(directory, Case("other", {".bashrc": "touch ~/ran\n"}))
    monkeypatch.setattr(os, "geteuid", lambda: home.uid + 1)
    report = ask(home)
    assert {verdict.billed for verdict in report.verdicts} == {"unknown"}
    assert "belongs to uid" in report.line()
    assert report.as_dict()["metered"] is None
    assert not (home.path / "ran").exists()


def test_reading_runs_nothing_and_says_that_it_is_a_reading(directory: Path) -> None:
    files = {".bashrc": "touch ~/ran\n. ~/.keys\n", ".keys": f"export ANTHROPIC_API_KEY={ONE}\n", ".zshrc": "A=1\n"}
    home = Dotfiles(directory, Case("read", files))
    report = find(home.path, home.environ, home.cwd, ask=False, ask_shell=False)
    assert not (home.path / "ran").exists()
    assert {verdict.how for verdict in report.verdicts} == {"read"}
    assert not report.certain
    assert "no proof" in report.line()
    [source] = report.reaching
    assert str(source) == f"ANTHROPIC_API_KEY in {home.path}/.keys:1 (through {home.path}/.bashrc:2)"
    (home.path / ".keys").unlink()
    nothing = find(home.path, home.environ, home.cwd, ask=False, ask_shell=False)
    assert (nothing.metered, nothing.certain, nothing.as_dict()["metered"]) == (False, False, None)


def test_the_real_cli_is_asked_with_what_each_shell_gives_it(directory: Path) -> None:
    made = Home(directory / "login")
    made.log_in()
    login = (made.path / ".claude/.credentials.json").read_text()
    files = {
        ".claude/.credentials.json": login,
        ".zshrc": f'alias claude="{claude_binary()} --model haiku"\nexport ANTHROPIC_API_KEY={ONE}\n',
        ".bashrc": f'alias claude="ANTHROPIC_API_KEY= {claude_binary()}"\nexport ANTHROPIC_API_KEY={ONE}\n',
        ".profile": "export ANTHROPIC_AUTH_TOKEN=t\n",
        ".config/fish/config.fish": "set -gx CLAUDE_CODE_USE_VERTEX 1\n",
    }
    home = Dotfiles(directory / "operator", Case("cli", files))
    (home.bin / "claude").unlink()
    (home.bin / "claude").symlink_to(claude_binary())
    report = ask(home)
    billed = {verdict.kind: verdict.billed for verdict in report.verdicts}
    assert billed["zsh interactive"] == "api_key"
    assert billed["zsh login"] == "subscription"
    assert billed["bash interactive"] == "subscription"
    assert billed["bash login"] == "token"
    assert billed["fish login"] == "cloud"
    assert report.logged_in


_RUN = """\
import sys; from pathlib import Path; from farmhand.billing import find; home = Path(sys.argv[1])
find(home, {!r}, home, ask=False, limit_s=600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_was_started_and_leaves_no_secret(directory: Path, number: signal.Signals) -> None:
    line = 'export ANTHROPIC_API_KEY="$(op read op://x/y)"\ntouch ~/started\nsleep 600\n'
    home = Dotfiles(directory, Case("stop", {".bashrc": line}))
    argv = [sys.executable, "-c", _RUN.format(home.environ), str(home.path)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        while not (home.path / "started").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert secrets_of(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (b"KeyboardInterrupt" in errors) if number == signal.SIGINT else process.returncode == 128 + number
    assert left_over(home) == []
    assert secrets_of(process.pid) == []


def test_what_a_killed_asking_left_is_removed_by_the_next(directory: Path) -> None:
    line = 'export ANTHROPIC_API_KEY="$(op read op://x/y)"\n[ -e ~/started ] || { touch ~/started; sleep 600; }\n'
    home = Dotfiles(directory, Case("killed", {".bashrc": line}))
    process = subprocess.Popen([sys.executable, "-c", _RUN.format(home.environ), str(home.path)])
    until = time.monotonic() + 60
    while not (home.path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    [supervisor] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert secrets_of(process.pid)
    # It sees the end by itself. What it was asked before that it still begins, and ends.
    while (in_session(supervisor) or left_over(home)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left_over(home) == []
    ask(home)
    assert secrets_of(process.pid) == []


def secrets_of(pid: int) -> list[Path]:
    """What an asking by this process holds of a password manager's answers."""
    return list(Path("/dev/shm").glob(f"farmhand-ask-{pid}-*/*/out"))


def test_a_wrapper_on_path_is_asked_as_claude_and_only_where_it_is(directory: Path) -> None:
    cli = """\
#!/bin/sh
[ "$*" = "auth status --json" ] || { echo "unexpected: $*" >&2; exit 2; }
[ -n "$ANTHROPIC_API_KEY" ] || { echo '{"loggedIn": false, "authMethod": "none"}'; exit 1; }
echo '{"loggedIn": true, "authMethod": "api_key", "apiKeySource": "ANTHROPIC_API_KEY"}'
"""
    wrapper = f'#!/bin/sh\nexport ANTHROPIC_API_KEY={ONE}\nPATH=${{PATH#"$HOME/bin:"}}\nexec claude "$@"\n'
    files = {".zshrc": "export PATH=$HOME/bin:$PATH\n", ".bashrc": "A=1\n", "bin/claude": wrapper}
    home = Dotfiles(directory, Case("wrapper", files))
    (home.path / "bin/claude").chmod(0o755)
    (home.bin / "claude").write_text(cli)
    told = {verdict.kind: verdict for verdict in ask(home).verdicts}
    assert told["zsh interactive"].billed == "api_key"
    assert told["zsh login"].billed == "none"
    assert told["bash interactive"].billed == "none"


def test_a_wrapper_that_starts_no_claude_is_named(directory: Path) -> None:
    home = Dotfiles(directory, Case("ssh", {".zshrc": "A=1\nclaude() {\n  echo ssh box claude\n}\n"}))
    told = {verdict.kind: verdict for verdict in ask(home).verdicts}
    assert told["zsh interactive"].billed == "unknown"
    assert "does not start the CLI" in told["zsh interactive"].reason
    assert told["zsh interactive"].stopped_at == f"{home.path}/.zshrc:3"


def test_what_waits_for_somebody_at_the_prompt_is_loaded_or_not_green(directory: Path) -> None:
    defer = "zsh-defer() { typeset -ga _zsh_defer_tasks; _zsh_defer_tasks+=($*) }\nzsh-defer source ~/.keys\n"
    turbo = "@zinit-scheduler() {\n  [[ $1 == burst ]] && source ~/.keys\n}\n"
    keys = f"export ANTHROPIC_API_KEY={ONE}\n"
    for name, text, billed in (("defer", defer, "unknown"), ("turbo", turbo, "api_key")):
        home = Dotfiles(directory / name, Case(name, {".zshrc": text, ".keys": keys}))
        told = {verdict.kind: verdict.billed for verdict in ask(home).verdicts}
        assert (told["zsh interactive"], told["zsh login"]) == (billed, "none")


def test_the_wrapper_from_before_is_named(directory: Path) -> None:
    text = 'alias farmhand=ls\n\nclaude-cheap() {\n  ssh box claude -p "$1"\n}\n'
    home = Dotfiles(directory, Case("hidden", {".zshrc": text}))
    assert ask(home).hidden == [f"claude-cheap in {home.path}/.zshrc:3", f"farmhand in {home.path}/.zshrc:1"]
