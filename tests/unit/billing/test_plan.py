"""What the role changes, what it leaves alone and why, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from farmhand.billing import guard
from farmhand.billing.keyfile import Refused
from farmhand.wire.keys import fingerprint
from tests.unit.billing.conftest import Station

KEY = "sk-ant-test-first-0000000000"
OTHER = "sk-ant-test-second-000000000"
EXPORT = f"export ANTHROPIC_API_KEY={KEY}\n"
NOTE = "# farmhand 2026-11-24: ANTHROPIC_API_KEY kept in ~/repos.env, so that claude runs on the subscription\n"
GONE = "# farmhand 2026-11-24: {} taken out, so that claude runs on the subscription\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"A=1\n{EXPORT}B=2\n", f"A=1\n{NOTE}# export ANTHROPIC_API_KEY=…\nB=2\n"),
        (f"{EXPORT[:-1]} # mine\n", f"{NOTE}# export ANTHROPIC_API_KEY=…  # mine\n"),
        (EXPORT.replace("\n", "\r\n") * 1, f"{NOTE}# export ANTHROPIC_API_KEY=…\n".replace("\n", "\r\n")),
        (EXPORT[:-1], f"{NOTE}# export ANTHROPIC_API_KEY=…"),
        (f"export A=1 ANTHROPIC_API_KEY='{KEY}' B='2 3'\n", f"{NOTE}export A=1 B='2 3'\n"),
        (f"export A=1 ANTHROPIC_API_KEY={KEY}; echo hi\n", f"{NOTE}export A=1; echo hi\n"),
        (f"echo a; {EXPORT[:-1]}; echo b\n", f"{NOTE}echo a; :; echo b\n"),
        (f"[ -t 1 ] && {EXPORT}", f"{NOTE}[ -t 1 ] && :\n"),
        (
            f"if true; then\n  {EXPORT}fi\n",
            f"if true; then\n  {NOTE}  : # export ANTHROPIC_API_KEY=…\nfi\n",
        ),
        (
            f'export ANTHROPIC_API_KEY="{KEY}" \\\n  ANTHROPIC_BASE_URL=https://x.example\n',
            GONE.format("ANTHROPIC_BASE_URL") + "X",
        ),
        (f"set -a\n. ~/repos.env\nset +a\n{EXPORT}", None),
    ],
)
def test_only_the_setting_goes(station: Station, before: str, after: str | None) -> None:
    station.put({".bashrc": before})
    done = station.present()
    assert not done["billing"]["metered"]
    assert station.read("repos.env") == f"ANTHROPIC_API_KEY={KEY}\n"
    assert KEY not in station.read(".bashrc")
    if after is None:
        # Now that repos.env has the key, what sources it would bring the key back.
        assert f"set -a\n. ~/repos.env\n{NOTE}unset ANTHROPIC_API_KEY\nset +a\n" in station.read(".bashrc")
    elif after.endswith("X"):
        lines = station.read(".bashrc").splitlines()
        assert all(line.startswith("#") for line in lines)
        assert {NOTE.strip(), GONE.format("ANTHROPIC_BASE_URL").strip()} <= set(lines)
    else:
        assert station.read(".bashrc") == after


def test_a_command_is_commented_out_and_never_run(station: Station, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    key = f"$(touch {ran}; pass show x)"
    station.put({".zshrc": f'export ANTHROPIC_API_KEY="{key}"\nexport ANTHROPIC_AUTH_TOKEN=`pass t`\n'})
    done = station.present()
    assert not ran.exists()
    assert not done["billing"]["metered"]
    assert not (station.home / "repos.env").exists()
    assert done["moved"] == []
    assert any("touch" in hint and 'key_source = "command:SCRIPT"' in hint for hint in done["hints"])
    assert station.read(".zshrc").splitlines()[1] == "# export ANTHROPIC_API_KEY=…"


@pytest.mark.parametrize(
    ("helper", "shown"),
    [("pass show x", "command:pass show x"), ("echo tok-en-1", "(echo …)"), ("curl -H 'x: tok-en-1' y", "(curl …)")],
)
def test_a_command_that_may_hold_a_secret_is_not_shown(station: Station, helper: str, shown: str) -> None:
    station.put({".claude/settings.json": json.dumps({"apiKeyHelper": helper})})
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
    station.put({".claude/settings.json": before})
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
    station.put({".config/environment.d/key.conf": f"ANTHROPIC_API_KEY={KEY}\n"})
    done = station.present()
    assert not done["billing"]["metered"]
    assert path.read_text() == f"LANG=C.UTF-8\n{NOTE}# ANTHROPIC_API_KEY=…\n"
    assert station.read(".config/environment.d/key.conf") == f"{NOTE}# ANTHROPIC_API_KEY=…\n"


def test_the_running_session_and_the_project_are_left_and_named(station: Station, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / ".claude").mkdir(parents=True)
    settings = project / ".claude/settings.json"
    settings.write_text(json.dumps({"env": {"ANTHROPIC_API_KEY": KEY}}))
    done = station.present(environ={"ANTHROPIC_API_KEY": KEY}, cwd=project)
    assert done["left"] == [
        "ANTHROPIC_API_KEY in the session's environment is left: the running session still has it: "
        "log in again, or open a new terminal",
        f"ANTHROPIC_API_KEY in {settings}:1 is left: it is the project's file; take it out there, "
        "or set workstation_edit_project",
    ]
    assert json.loads(settings.read_text()) == {"env": {"ANTHROPIC_API_KEY": KEY}}
    assert not station.present(environ={"ANTHROPIC_API_KEY": KEY}, cwd=project)["changed"]
    station.present(cwd=project, edit_project=True)
    assert json.loads(settings.read_text()) == {"env": {}}


def test_two_different_keys_move_none_until_one_is_chosen(station: Station) -> None:
    files: dict[str, str | bytes] = {".zshrc": EXPORT, ".bashrc": f"export ANTHROPIC_API_KEY={OTHER}\n"}
    station.put(files)
    with pytest.raises(Refused) as refused:
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
    with pytest.raises(Refused, match="2 different keys"):
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
    with pytest.raises(Refused) as refused:
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
        (".config/fish/config.fish", f"set -gx ANTHROPIC_API_KEY {KEY}\nif true\n", "line 2"),
        (".claude/settings.json", f'{{"env": {{"ANTHROPIC_API_KEY": "{KEY}",}}}}', "settings.json:1: not JSON"),
    ],
)
def test_a_broken_file_is_left_byte_for_byte(station: Station, name: str, text: str, says: str) -> None:
    station.put({name: text})
    done = station.present()
    assert station.read(name) == text
    assert any(says in left for left in done["left"]), done["left"]
    assert KEY not in json.dumps(done)


def test_a_file_that_only_its_shell_finds_broken_is_left(station: Station) -> None:
    text = f"{EXPORT}echo\nf() {{ }}\n"
    station.put({".bashrc": text})
    assert guard.syntax_error(text, "bash") == 3
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


def test_somebody_else_s_file_is_left(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    station.put({".zshrc": EXPORT})
    owner = (station.home / ".zshrc").stat().st_uid
    monkeypatch.setattr("farmhand.billing.guard.os.geteuid", lambda: owner + 1)
    assert f"it belongs to another user (uid {owner})" in station.present()["left"][0]
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
