"""With the package and its own dependencies alone, every verb has help, and what needs an extra says which, in a line.

The interpreter of these tests sees the packages of requirements/agent.txt and no other.
"""

from __future__ import annotations

import json
import re
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
#: Runs the commands that come as JSON on stdin, each in a process of its own but with click imported once.
_DRIVER = """
import json, os, sys, tempfile
import click
found = []
for words in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            for number in (1, 2):
                os.dup2(out.fileno(), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv = ["farmhand", *words]
            from farmhand.cli import main
            try:
                main()
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(end.code or 0)
            os._exit(99)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        found.append((status, out.read().decode()))
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with what `pip install .` brings: links to those packages of this one."""
    directory = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(directory, with_pip=False)
    [packages] = directory.glob("lib/python*/site-packages")
    pinned = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements/agent.txt").read_text("utf-8"), re.MULTILINE)
    for name in [*pinned, "farmhand"]:
        try:
            found = distribution(name)
        except ModuleNotFoundError:  # of another platform or version of Python
            continue
        for top in {str(file).partition("/")[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    return directory / "bin" / "python"


def run(python: Path, home: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Status and output of each command."""
    hosts = home / ".config/farmhand/hosts.json"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(json.dumps({"hosts": {"farm1": {"address": "127.0.0.1", "port": 1}}}))
    (home / "key.env").touch(0o600)
    (home / "key.env").write_text("ANTHROPIC_API_KEY=sk-ant-test-0000000000000000\n")
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "FARMHAND_KEY_SOURCE": f"file:{home}/key.env"}
    environ["FARMHAND_PROJECT_DIR"] = str(ROOT)
    done = subprocess.run(
        [python, "-c", _DRIVER], input=json.dumps(commands), env=environ, cwd=home, capture_output=True, text=True,
        check=True, timeout=600,
    )  # fmt: skip
    return [(status, text) for status, text in json.loads(done.stdout)]


def test_every_verb_has_help_and_every_run_is_done_or_says_what_is_missing(python: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"hello"\n')
    verbs = [words.split() for words in VERBS]
    for words, (status, text) in zip(
        verbs, run(python, tmp_path, *([*words, "--help"] for words in verbs)), strict=True
    ):
        assert (status, text.split(" ")[0]) == (0, "Usage:"), (words, text)
    rich = f"farmhand: the Python package rich is not installed ({python} -m pip install rich)\n"
    wanted = {
        "cost --no-merge --no-interactive": (3, rich),
        "cost --no-merge --no-interactive --json": (0, '"version"'),
        "cost --no-merge --no-interactive --csv": (0, "model,spent_usd"),
        "report --no-merge": (3, rich),
        "report --no-merge --html -": (0, "<html"),
        "report --no-merge --json": (0, '"version"'),
        "status --json": (4, '"unreachable"'),
        "top": (3, rich),
        "status": (3, rich),
        "run hello --fallback none": (4, "farm1"),
        "flush": (0, "nothing is queued"),
        "up --check": (3, "ansible-playbook is not installed"),
        "batch in.jsonl --out out.jsonl": (3, "the Python package ansible-runner is not installed"),
        "cloud status": (3, "pip install boto3"),
        "rotate --status": (0, "key in use"),
        "doctor --skip shells --skip api": (1, "RED"),
    }
    found = run(python, tmp_path, *(line.split() for line in wanted))
    wrong = {
        line: (ended, text)
        for (line, (status, words)), (ended, text) in zip(wanted.items(), found, strict=True)
        if ended != status or words not in text or "Traceback" in text or "ModuleNotFound" in text
    }
    assert wrong == {}


VERBS = [
    *("run", "code", "doctor", "flush", "batch", "status", "cost", "rotate", "report", "up", "down"),
    *("gateway serve", "prices check"),
    *("list", "show", "logs", "wait", "cancel", "again", "statusline", "init", "playbook", "mcp"),
    *("gateway explain", "cloud up", "cloud push", "cloud credential put", "cloud status"),
]


def test_these_are_the_verbs() -> None:
    from farmhand.cli.app import ALIASES
    from farmhand.cli.app import VERBS as KNOWN

    assert {words.split()[0] for words in VERBS} == set(KNOWN) - set(ALIASES)
