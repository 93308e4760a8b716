"""Taking credentials out of start-up files: what goes, what stays, and that nothing of a value is ever shown."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.plugins.scrub import MAX_BYTES, PROTECTED, Scrubber, clean_environment, clean_json, clean_shell, places

KEY = "sk-ant-test-scrub-0000000000000000"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("export ANTHROPIC_API_KEY=x\n", ":\n"),
        ("export EDITOR=vi ANTHROPIC_AUTH_TOKEN='a b'\n", "export EDITOR=vi\n"),
        ("export A=1 ANTHROPIC_API_KEY=x B=2\n", "export A=1 B=2\n"),
        ("if x; then\n  export CLAUDE_CODE_OAUTH_TOKEN=a # why\nfi\n", "if x; then\n  : # why\nfi\n"),
        ("if true; then export ANTHROPIC_API_KEY=$(cat ~/k y); fi\n", "if true; then :; fi\n"),
        ("f() { export ANTHROPIC_API_KEY=x; }\n", "f() { :; }\n"),
        ("true && export ANTHROPIC_API_KEY=x\n", "true && :\n"),
        ("ANTHROPIC_API_KEY=x claude\n", "claude\n"),
        (f"alias c='ANTHROPIC_API_KEY={KEY} claude'\n", "alias c='claude'\n"),
        ("export A=1 \\\n  ANTHROPIC_API_KEY=x\n", "export A=1 \\\n  \n"),
        ("export ANTHROPIC_API_KEY=x \\\n B=2\n", "export \\\n B=2\n"),
        ('export ANTHROPIC_API_KEY="$(pass show "a b")"\n', ":\n"),
        (f'K={KEY}; export ANTHROPIC_API_KEY="$K"\n', "K=; :\n"),
        (f"# my key: {KEY}\n", "# my key: \n"),
        ("set -gx ANTHROPIC_API_KEY abc\n", ":\n"),
        ("setenv ANTHROPIC_API_KEY 'abc'\n", ":\n"),
    ],
)
def test_shell(text: str, cleaned: str) -> None:
    result, found = clean_shell(text)
    assert result == cleaned
    assert found
    assert subprocess.run(["bash", "-n"], input=result, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unset ANTHROPIC_API_KEY\n",
        "export ANTHROPIC_API_KEY=\n",
        "ANTHROPIC_API_KEY='' claude\n",
        "MY_ANTHROPIC_API_KEY=x\n",
        '[ -z "$ANTHROPIC_API_KEY" ] && echo none\n',
        "# ANTHROPIC_API_KEY=...\n",
        "export ANTHROPIC_BASE_URL=http://127.0.0.1\n",
    ],
)
def test_shell_leaves_alone(text: str) -> None:
    assert clean_shell(text) == (text, [])


@given(st.text(), st.sampled_from(PROTECTED))
def test_shell_is_done_in_one_pass_and_never_fails(text: str, name: str) -> None:
    cleaned, _ = clean_shell(f"{text}\nexport {name}={KEY}\n{text}")
    assert KEY not in cleaned
    assert clean_shell(cleaned)[1] == []


def test_shell_takes_no_long_time() -> None:
    clean_shell('export ANTHROPIC_API_KEY="' + "$(a)" * 5000 + "\n")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("LANG=C\nANTHROPIC_API_KEY=x\n", "LANG=C\n"),
        ("ANTHROPIC_API_KEY DEFAULT=x\nPATH DEFAULT=/bin\n", "PATH DEFAULT=/bin\n"),
        ("SETUVAR --export ANTHROPIC_API_KEY:abc\\x2d\n", ""),
        (f"OTHER={KEY}\n", "OTHER=\n"),
    ],
)
def test_environment(text: str, cleaned: str) -> None:
    result, found = clean_environment(text)
    assert result == cleaned
    assert found


def test_json() -> None:
    tree = {"theme": "dark", "primaryApiKey": KEY, "env": {"ANTHROPIC_API_KEY": "x", "EDITOR": "vi"}, "ids": [KEY, 1]}
    cleaned, found = clean_json(json.dumps(tree))
    assert json.loads(cleaned) == {"theme": "dark", "env": {"EDITOR": "vi"}, "ids": [1]}
    assert {what for _, what in found} == {"primaryApiKey", "ANTHROPIC_API_KEY", "a list entry"}


def test_json_without_credential_is_not_rewritten() -> None:
    text = '{"theme":   "dark"}'
    assert clean_json(text) == (text, [])


def test_json_that_is_none_is_cleaned_as_text() -> None:
    cleaned, found = clean_json(f'{{"a": "{KEY}", broken')
    assert KEY not in cleaned
    assert found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/environment").write_text(f"LANG=C\nANTHROPIC_API_KEY={KEY}\n")
    home = tmp_path / "home/ann"
    (home / ".claude").mkdir(parents=True)
    (home / "dotfiles").mkdir()
    (home / "dotfiles/bashrc").write_text(f"alias l=ls\nexport ANTHROPIC_API_KEY={KEY}\n")
    (home / "dotfiles/bashrc").chmod(0o640)
    (home / ".bashrc").symlink_to("dotfiles/bashrc")
    (home / ".claude/.credentials.json").write_text("{}")
    return tmp_path


def scrub(tree: Path, *, write: bool) -> Scrubber:
    scrubber = Scrubber(tree / "backups", write=write)
    scrubber.run(places(tree, [tree / "home/ann"]))
    return scrubber


def test_scrubber_removes_reports_and_keeps_originals(tree: Path) -> None:
    scrubber = scrub(tree, write=True)
    home = tree / "home/ann"
    assert [str(finding) for finding in scrubber.findings] == [
        f"{tree}/etc/environment:2: ANTHROPIC_API_KEY",
        f"{home}/dotfiles/bashrc:2: ANTHROPIC_API_KEY",
        f"{home}/.claude/.credentials.json: a login of the claude CLI",
    ]
    assert (tree / "etc/environment").read_text() == "LANG=C\n"
    assert (home / ".bashrc").is_symlink()
    assert (home / ".bashrc").read_text() == "alias l=ls\n:\n"
    assert (home / "dotfiles/bashrc").stat().st_mode & 0o777 == 0o640
    assert not (home / ".claude/.credentials.json").exists()
    assert (tree / "backups").stat().st_mode & 0o777 == 0o700
    originals = [Path(path) for path in scrubber.saved]
    assert len(originals) == 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in originals)
    assert KEY in originals[0].read_text()


def test_scrubber_in_check_mode_finds_the_same_and_writes_nothing(tree: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    dry = scrub(tree, write=False)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    assert not (tree / "backups").exists()
    assert dry.findings == scrub(tree, write=True).findings


def test_second_run_finds_nothing(tree: Path) -> None:
    scrub(tree, write=True)
    assert scrub(tree, write=True).findings == []


def test_no_finding_shows_a_value(tree: Path) -> None:
    assert KEY not in repr(scrub(tree, write=False).findings)


def test_link_out_of_the_home_to_a_file_of_another_owner_is_left(tree: Path) -> None:
    target = Path("/etc/passwd")
    if os.geteuid() == 0:
        target = tree / "etc/other"
        target.write_text(f"export ANTHROPIC_API_KEY={KEY}\n")
        os.chown(target, 1, 1)
    (tree / "home/ann/.profile").symlink_to(target)
    assert target not in [path for path, _ in places(tree, [tree / "home/ann"])]


def test_a_large_file_is_looked_into_as_well(tree: Path) -> None:
    history = {"projects": "x" * (3 << 20), "env": {"ANTHROPIC_API_KEY": KEY}}
    (tree / "home/ann/.claude.json").write_text(json.dumps(history))
    assert f"{tree}/home/ann/.claude.json: ANTHROPIC_API_KEY" in map(str, scrub(tree, write=True).findings)
    assert KEY not in (tree / "home/ann/.claude.json").read_text()


def test_a_file_too_large_to_look_into_is_named_and_not_passed_over(tree: Path) -> None:
    with (tree / "home/ann/.profile").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(OSError, match="not looked into") as caught:
        scrub(tree, write=True)
    assert caught.value.filename == f"{tree}/home/ann/.profile"
