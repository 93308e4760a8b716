from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from farmhand import __version__
from farmhand.cli import app, say


def test_every_verb_is_there_with_its_help() -> None:
    listed = CliRunner().invoke(app.farmhand, ["--help"]).output
    for verb in app.VERBS:
        assert verb in listed
        assert CliRunner().invoke(app.farmhand, [verb, "--help"]).exit_code == 0
        # What `mcp` writes is the protocol's.
        assert verb == "mcp" or "--json" in CliRunner().invoke(app.farmhand, [verb, "--help"]).output


def farmhand(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from farmhand.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_unknown_things_are_one_line() -> None:
    assert farmhand("--version") == (0, f"farmhand {__version__}\n", "")
    for arguments in (["nothing"], ["--nothing"], ["status", "--nothing"], ["status", "extra"]):
        status, out, err = farmhand(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("farmhand: ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["nothing"], "No such command 'nothing'.", "farmhand --help lists them"),
        (["list", "--nothing"], "No such option '--nothing'.", "options: farmhand list --help"),
        (
            ["run", "--zzz", "p"],
            "No such option '--zzz'.",
            "options: farmhand run --help; put -- before a prompt that begins with a dash",
        ),
        (
            ["run", "two", "words"],
            "Got unexpected extra argument (words)",
            "quote the prompt, so that it is one argument",
        ),
        (["show", "two", "ids"], "Got unexpected extra argument (ids)", ""),
        (["list", "-n", "0"], "Invalid value for '-n' / '--limit': 0 is not in the range 1<=x<=10000.", ""),
    ],
)
def test_what_click_refuses_is_one_object_with_json_and_the_hint_fits_the_verb(
    arguments: list[str], message: str, hint: str
) -> None:
    line = f"farmhand: {message}{f' ({hint})' if hint else ''}\n"
    assert farmhand(*arguments) == (2, "", line)
    status, out, err = farmhand(arguments[0], "--json", *arguments[1:])
    assert (status, json.loads(out), err) == (2, {"error": {"code": "usage", "message": message, "hint": hint}}, line)


def test_json_after_the_dashes_is_a_prompt() -> None:
    assert farmhand("run", "--max-tokens", "x", "--", "--json")[:2] == (2, "")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_starting_up_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = (
        "rich",
        "aiohttp",
        "jsonschema",
        "ansible",
        "ansible_runner",
        "msgspec",
        "yaml",
        "asyncio",
        "prometheus_client",
        "boto3",
    )
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {heavy!r} if m in sys.modules]))\n"
        "from farmhand.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_no_verb_imports_what_only_servers_and_clouds_need() -> None:
    """Each would add 0.3 s of processor time to a command that does without it; who needs it imports it late."""
    script = (
        "import importlib, pkgutil, sys\n"
        "from farmhand import cli\n"
        "names = [module.name for module in pkgutil.walk_packages(cli.__path__, 'farmhand.cli.')]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "heavy = ('aiohttp', 'boto3', 'ansible', 'mcp', 'opentelemetry', 'prometheus_client')\n"
        "print(len(names) > 50, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


def test_up_hands_its_options_to_ansible_playbook(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "site.yml").write_text("- hosts: localhost\n  gather_facts: false\n  tasks: [{fail: {msg: no}}]\n")
    where = ["--project-dir", str(tmp_path)]
    status, out, err = farmhand("up", "--json", *where, "--check", "-i", "localhost,", "-c", "local")
    assert status == 1
    assert '"message": "site.yml failed: ansible-playbook ended with 2"' in out
    assert out.count("\n") == 1
    assert "PLAY [localhost]" in err
    status, out, _ = farmhand("up", *where, "--syntax-check", "-i", "localhost,")
    assert (status, "site.yml" in out) == (0, True)


def test_up_create_makes_the_box_that_is_named(tmp_path: Path) -> None:
    for name in ("ansible.cfg", "site.yml"):
        (tmp_path / name).touch()
    (tmp_path / "playbooks").mkdir()
    tasks = "[{debug: {msg: 'a box called {{ box_name }}, {{ box_size }}'}}]"
    (tmp_path / "playbooks/box.yml").write_text(f"- hosts: localhost\n  gather_facts: false\n  tasks: {tasks}\n")
    given = ["--project-dir", str(tmp_path), "--create", "farm1 x=y", "-e", "box_size=big", "-i", "localhost,"]
    status, out, _ = farmhand("up", *given, "-c", "local")
    assert (status, "a box called farm1 x=y, big" in out) == (0, True)
    status, _, err = farmhand("up", "--create", "farm1", "--place", "docker")
    assert (status, "--place docker needs none" in err) == (2, True)


def test_an_error_from_afar_gives_the_terminal_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    say.note("the claude CLI failed: \x1b]0;owned\x07\x1b[2J\x9b31m\r\n\tred")
    assert capsys.readouterr().err == "farmhand: the claude CLI failed: \ufffd]0;owned\ufffd\ufffd[2J\ufffd31m red\n"
