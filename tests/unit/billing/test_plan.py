"""What the role changes, what it leaves alone and why, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from farmhand.billing.draft import refusal
from farmhand.billing.edit import syntax_error
from farmhand.billing.keyfile import ChangeRefused
from farmhand.core.keys import fingerprint
from tests.unit.billing.conftest import Station

KEY = "sk-ant-test-first-0000000000"
OTHER = "sk-ant-test-second-000000000"
EXPORT = f"export ANTHROPIC_API_KEY={KEY}\n"
NOTE = "# farmhand 2026-11-24: ANTHROPIC_API_KEY kept in ~/repos.env, so that claude runs on the subscription\n"
GONE = "# farmhand 2026-11-24: {} taken out, so that claude runs on the subscription\n"


UNSET = f"{NOTE}unset ANTHROPIC_API_KEY\n"
COMMENT_OUT = "# export ANTHROPIC_API_KEY=…"
COMMENT = f"{NOTE}# export ANTHROPIC_API_KEY=…\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"A=1\n{EXPORT}B=2\n", f"A=1\n{COMMENT}B=2\n"),
        (f"{EXPORT[:-1]} # mine\n", f"{COMMENT[:-1]}  # mine\n"),
        (f"  export ANTHROPIC_API_KEY='{KEY}';\n", f"  {NOTE}  # export ANTHROPIC_API_KEY=…\n"),
        (EXPORT[:-1], COMMENT[:-1]),
        (f"if true; then\n\t{EXPORT}fi\n", f"if true; then\n\t{NOTE}\t# export ANTHROPIC_API_KEY=…\nfi\n"),
        (f"export A=1 ANTHROPIC_API_KEY='{KEY}' B='2 3'\n", f"export A=1 ANTHROPIC_API_KEY='{KEY}' B='2 3'\n{UNSET}"),
        (f"{EXPORT[:-1]}; export OTHER=1", f"{EXPORT[:-1]}; export OTHER=1\n{UNSET}"),
        (f"[ -f / ] || [ -d / ] && {EXPORT}B=2\n", f"[ -f / ] || [ -d / ] && {EXPORT}{UNSET}B=2\n"),
        (f"if true; then {EXPORT[:-1]}; fi\nB=2\n", f"if true; then {EXPORT[:-1]}; fi\n{UNSET}B=2\n"),
        (f"f() {{\n  export $1={KEY}\n}}\nf ANTHROPIC_API_KEY\n", None),
        (f"set -a\n. ~/repos.env\nset +a\n{EXPORT}", f"set -a\n. ~/repos.env\n{UNSET}set +a\n{COMMENT}"),
    ],
)
def test_only_the_setting_goes(station: Station, before: str, after: str | None) -> None:
    station.put({".zshrc": before})
    done = station.present(ask_shell=True)
    assert not done["billing"]["metered"]
    assert station.read("repos.env") == f"ANTHROPIC_API_KEY={KEY}\n"
    assert station.read(".zshrc") == (before + UNSET if after is None else after)
    said = " ".join(done["edits"])
    assert ("commented out in" in said, "unset after" in said) == (
        COMMENT_OUT in str(after),
        UNSET in str(after or UNSET),
    )
    station.absent()
    assert station.read(".zshrc") == before


def test_several_names_on_one_line_become_a_comment_only_if_all_have_to_go(station: Station) -> None:
    line = f'export ANTHROPIC_API_KEY="{KEY}" \\\n  ANTHROPIC_BASE_URL=https://x.example\n'
    station.put({".zshrc": line})
    station.present()
    lines = station.read(".zshrc").splitlines()
    assert lines[-1] == "# export ANTHROPIC_API_KEY=… ANTHROPIC_BASE_URL=…"
    assert lines[:2] == [NOTE.strip(), GONE.format("ANTHROPIC_BASE_URL").strip()]
    station.absent()
    done = station.present(keep=["ANTHROPIC_BASE_URL"], ask_shell=True)
    assert station.read(".zshrc") == line + UNSET
    assert "is left, as workstation_keep says" in done["left"][0]


def test_what_a_program_prints_is_never_written_down(station: Station) -> None:
    program = station.home / "bin/pass"
    station.put({"bin/pass": f"#!/bin/sh\necho {KEY}\n", ".zshrc": f'export ANTHROPIC_API_KEY="$({program} show x)"\n'})
    program.chmod(0o755)
    done = station.present()
    assert not done["billing"]["metered"]
    assert not (station.home / "repos.env").exists()
    assert done["moved"] == []
    assert station.read(".zshrc").splitlines()[1] == "# export ANTHROPIC_API_KEY=…"


@pytest.mark.parametrize(
    ("helper", "shown"),
    [("pass show x", "command:pass show x"), ("echo tok-en-1", "(echo …)"), ("curl -H 'x: tok-en-1' y", "(curl …)")],
)
def test_a_command_that_may_hold_a_secret_is_not_shown(station: Station, helper: str, shown: str) -> None:
    station.put({".zshrc": "", ".claude/settings.json": json.dumps({"apiKeyHelper": helper})})
    done = station.present()
    assert shown in done["hints"][0]
    assert "tok-en-1" not in json.dumps(done)


def test_switches_and_base_urls_are_taken_out_and_kept_on_request(station: Station) -> None:
    text = "export CLAUDE_CODE_USE_BEDROCK=1\nexport ANTHROPIC_BASE_URL=https://proxy.example\n"
    station.put({".zshenv": text})
    done = station.present(keep=["ANTHROPIC_BASE_URL"])
    assert station.read(".zshenv").endswith(
        "# export CLAUDE_CODE_USE_BEDROCK=…\nexport ANTHROPIC_BASE_URL=https://proxy.example\n"
    )
    assert {verdict["base_url"] for verdict in done["billing"]["shells"] if verdict["shell"] == "zsh"} == {
        f"ANTHROPIC_BASE_URL in {station.home}/.zshenv:3"
    }


def test_settings_lose_the_member_and_nothing_else(station: Station) -> None:
    env = f'"env": {{\n    "ANTHROPIC_API_KEY": "{KEY}",\n    "A": "1"\n  }}'
    before = f'{{\n  "model": "opus",\n  {env},\n  "apiKeyHelper": "pass x"\n}}\n'
    station.put({".zshrc": "", ".claude/settings.json": before})
    done = station.present()
    assert station.read(".claude/settings.json") == '{\n  "model": "opus",\n  "env": {\n    "A": "1"\n  }\n}\n'
    assert station.read("repos.env") == f"ANTHROPIC_API_KEY={KEY}\n"
    assert any("command:pass x" in hint for hint in done["hints"])
    assert station.absent()["changed"]
    assert station.read(".claude/settings.json") == before


def test_the_system_s_files_are_commented_out(station: Station) -> None:
    path = station.root / "etc/environment"
    path.parent.mkdir(parents=True)
    path.write_text(f'LANG=C.UTF-8\nANTHROPIC_API_KEY="{KEY}"\n')
    station.put({".zshrc": "", ".config/environment.d/key.conf": f"ANTHROPIC_API_KEY={KEY}\n"})
    done = station.present()
    assert not done["billing"]["metered"]
    assert path.read_text() == f"LANG=C.UTF-8\n{NOTE}# ANTHROPIC_API_KEY=…\n"
    assert station.read(".config/environment.d/key.conf") == f"{NOTE}# ANTHROPIC_API_KEY=…\n"


def test_the_running_session_and_the_project_are_left_and_named(station: Station, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".claude").mkdir(parents=True)
    settings = project / ".claude/settings.json"
    settings.write_text(json.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}))
    station.put({".zshrc": ""})
    done = station.present(environ={"ANTHROPIC_API_KEY": KEY}, cwd=project)
    assert done["left"] == [
        f"ANTHROPIC_API_KEY in {settings}:1 is left: it is the project's file; take it out there, "
        "or set workstation_edit_project",
        "ANTHROPIC_API_KEY in the session's environment is left: the running session still has it: "
        "log in again, or open a new terminal",
    ]
    assert json.loads(settings.read_text()) == {"env": {"ANTHROPIC_API_KEY": KEY}}
    assert not station.present(environ={"ANTHROPIC_API_KEY": KEY}, cwd=project)["changed"]
    station.present(cwd=project, edit_project=True)
    assert json.loads(settings.read_text()) == {"env": {}}


def test_two_different_keys_move_none_until_one_is_chosen(station: Station) -> None:
    files: dict[str, str | bytes] = {".zshrc": EXPORT, ".bashrc": f"export ANTHROPIC_API_KEY={OTHER}\n"}
    station.put(files)
    with pytest.raises(ChangeRefused) as refused:
        station.present()
    line = str(refused.value)
    assert "\n" not in line
    for words in (
        "2 different keys",
        fingerprint(KEY),
        fingerprint(OTHER),
        ".zshrc:1",
        ".bashrc:1",
        "workstation_key=",
    ):
        assert words in line
    assert KEY not in line
    assert OTHER not in line
    assert (station.read(".zshrc"), station.read(".bashrc")) == (EXPORT, f"export ANTHROPIC_API_KEY={OTHER}\n")
    assert not station.store.directory.exists()
    done = station.present(chosen=fingerprint(OTHER))
    assert station.read("repos.env") == f"ANTHROPIC_API_KEY={OTHER}\n"
    assert not done["billing"]["metered"]


def test_a_key_file_with_another_key_counts_as_the_second(station: Station) -> None:
    station.put({".zshrc": EXPORT, "repos.env": f"# k\nexport ANTHROPIC_API_KEY='{OTHER}' # old\n"})
    with pytest.raises(ChangeRefused, match="2 different keys"):
        station.present()
    station.present(chosen=fingerprint(KEY))
    assert station.read("repos.env") == f"# k\nexport ANTHROPIC_API_KEY={KEY}\n"
    station.absent()
    assert station.read("repos.env") == f"# k\nexport ANTHROPIC_API_KEY='{OTHER}' # old\n"


def test_what_is_no_anthropic_key_is_not_moved(station: Station) -> None:
    station.put({".zshrc": "export ANTHROPIC_API_KEY=gateway-1234567890\n"})
    done = station.present()
    assert not done["billing"]["metered"]
    assert not (station.home / "repos.env").exists()
    assert "no Anthropic API key" in done["hints"][0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nANTHROPIC_API_KEY=$(pass show x)\n", 2),
        ("A=`id`\n", 1),
        ("A=1\nB='open\n", 2),
        ("ANTHROPIC_API_KEY=x\nANTHROPIC_API_KEY=y\n", 2),
        ("export A = 1\n", 1),
        ("ls -l\n", 1),
    ],
)
def test_a_key_file_that_cannot_be_understood_is_refused_and_never_run(station: Station, text: str, line: int) -> None:
    station.put({".zshrc": EXPORT, "repos.env": text})
    with pytest.raises(ChangeRefused) as refused:
        station.present()
    assert str(refused.value).startswith(f"{station.home}/repos.env, line {line}: ")
    assert "nothing was changed" in str(refused.value)
    assert (station.read(".zshrc"), station.read("repos.env")) == (EXPORT, text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\n\nexport A='1 2'\nB=\"x\"", f"# mine\n\nexport A='1 2'\nB=\"x\"\nANTHROPIC_API_KEY={KEY}\n"),
        ("A=1\r\nB=2\r\n", f"A=1\r\nB=2\r\nANTHROPIC_API_KEY={KEY}\r\n"),
        ("", f"ANTHROPIC_API_KEY={KEY}\n"),
        (f"export ANTHROPIC_API_KEY='{KEY}'\n", f"export ANTHROPIC_API_KEY='{KEY}'\n"),
    ],
)
def test_the_key_file_keeps_its_other_content(station: Station, before: str, after: str) -> None:
    station.put({".zshrc": EXPORT, "repos.env": before})
    (station.home / "repos.env").chmod(0o644)
    station.present()
    assert station.read("repos.env") == after
    assert (station.home / "repos.env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (".zshrc", f"{EXPORT}if true; then\n", "line 3"),
        (".bashrc", f"{EXPORT}echo 'open\n", "line 2"),
    ],
)
def test_a_broken_file_is_left_byte_for_byte(station: Station, name: str, text: str, says: str) -> None:
    station.put({name: text})
    done = station.present()
    assert station.read(name) == text
    assert any(says in left for left in done["left"]), done["left"]
    assert KEY not in json.dumps(done)


def test_settings_that_are_no_json_are_left_and_named(station: Station) -> None:
    text = f'{{"env": {{"ANTHROPIC_API_KEY": "{KEY}",}}}}'
    station.put({".zshrc": "", ".claude/settings.json": text})
    done = station.present()
    assert station.read(".claude/settings.json") == text
    assert "settings.json:1: not JSON" in done["left"][0]


def test_a_file_that_only_its_shell_finds_broken_is_left(station: Station) -> None:
    text = f"{EXPORT}echo\nf() {{ }}\n"
    station.put({".bashrc": text})
    assert syntax_error(text, "bash") == 3
    done = station.present()
    assert station.read(".bashrc") == text
    assert "bash does not accept" in done["left"][0]
    assert "(line 3)" in done["left"][0]


def test_a_link_stays_a_link_and_its_target_in_the_home_is_edited(station: Station) -> None:
    station.put({"dotfiles/zshrc": EXPORT})
    (station.home / ".zshrc").symlink_to("dotfiles/zshrc")
    done = station.present()
    assert (station.home / ".zshrc").is_symlink()
    assert station.read("dotfiles/zshrc") == f"{NOTE}# export ANTHROPIC_API_KEY=…\n"
    assert str(station.home / "dotfiles/zshrc") in done["files"]


def test_a_link_out_of_the_home_is_left(station: Station, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(EXPORT)
    (station.home / ".zshrc").symlink_to(tmp_path / "elsewhere")
    done = station.present()
    assert (tmp_path / "elsewhere").read_text() == EXPORT
    assert f"it is a link to {tmp_path}/elsewhere, outside of the home directory" in done["left"][0]


def test_a_read_only_file_is_left(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    (station.home / ".zshrc").chmod(0o444)
    assert "it is read-only (mode 0444)" in station.present()["left"][0]
    assert station.read(".zshrc") == EXPORT


def test_a_hard_linked_file_is_left(station: Station) -> None:
    station.put({".zshrc": EXPORT})
    os.link(station.home / ".zshrc", station.home / "other")
    assert "it has 2 hard links" in station.present()["left"][0]
    assert station.read(".zshrc") == EXPORT


def test_somebody_else_s_file_is_left(station: Station) -> None:
    if os.geteuid() != 0:
        assert "it belongs to another user (uid 0)" in str(refusal(Path("/etc/passwd"), station.home))
        return
    station.put({".zshrc": EXPORT})
    os.chown(station.home / ".zshrc", 54321, -1)
    assert "it belongs to another user (uid 54321)" in station.present()["left"][0]
    assert station.read(".zshrc") == EXPORT


def test_a_file_of_bytes_that_are_no_text_keeps_them(station: Station) -> None:
    station.put({".bashrc": b"# caf\xe9 \xff\n" + EXPORT.encode() + b"A='\xfe'\n"})
    station.present()
    content = (station.home / ".bashrc").read_bytes()
    assert content.startswith(b"# caf\xe9 \xff\n# farmhand")
    assert content.endswith(b"A='\xfe'\n")


def test_nothing_that_is_returned_has_a_value(station: Station) -> None:
    secrets = [KEY, "ghp_other", "tok-en-12345", "user:pass"]
    station.put(
        {
            ".zshrc": f'export GH=ghp_other ANTHROPIC_API_KEY={KEY}\nexport ANTHROPIC_AUTH_TOKEN="tok-en-12345"\n'
            "export ANTHROPIC_BASE_URL=https://user:pass@x.example\n",
            ".config/fish/config.fish": f"set -gx ANTHROPIC_API_KEY '{KEY}'\n"
            "set -gx ANTHROPIC_AUTH_TOKEN tok-en-12345\n",
            ".claude/settings.json": json.dumps({"env": {"ANTHROPIC_AUTH_TOKEN": "tok-en-12345"}}),
            "repos.env": "GH=ghp_other\n",
        }
    )
    checked = station.present(write=False)
    done = station.present()
    text = json.dumps([checked, done, station.present(), station.absent()])
    assert [secret for secret in secrets if secret in text] == []
    assert checked["diff"] == done["diff"]
    assert checked["files"] == done["files"]
