"""The start of claude-cheap: what it does not import, and that ssh is on its way before the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

#: What an ordinary call does without; each costs it between 5 and 20 ms. http.client and msgspec, and what comes with
#: them, are imported while ssh connects.
HEAVY = (
    *("click", "dataclasses", "importlib.metadata", "tempfile", "urllib.request"),
    *(
        "inspect",
        "typing_extensions",
        "asyncio",
        "logging",
        "traceback",
        "jsonschema",
        "aiohttp",
        "rich",
        "yaml",
        "ansible_runner",
    ),
)
#: An ssh that is an agent: it answers each request in turn, and notes that it was started.
SSH = """#!{python} -I
import json, os, sys
open(os.environ["STARTED"], "a").write("ssh\\n")
def answer(body):
    data = json.dumps(body).encode() + b"\\n"
    head = b"HTTP/1.1 200 OK\\r\\nX-Farmhand-Wire: 1\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(data)
    sys.stdout.buffer.write(head + data)
    sys.stdout.buffer.flush()
state = {{"id": "", "state": "queued"}}
result = {{"type": "result", "result": {{"id": "", "state": "succeeded", "text": "hello"}}}}
for body in ({{"version": "9"}}, {{"tasks": [state]}}, result):
    length = 0
    while (line := sys.stdin.buffer.readline()).strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    sent = sys.stdin.buffer.read(length)
    if sent:
        state["id"] = result["result"]["id"] = json.loads(sent)["tasks"][0]["id"]
    answer(body)
sys.stdin.buffer.read()
"""
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("LOADED", sorted(m for m in {heavy!r} if m in sys.modules), file=sys.stderr))
from farmhand.cli import {entry}
{entry}()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(SSH.format(python=sys.executable))
    ssh.chmod(0o755)
    (tmp_path / "hosts.json").write_text(json.dumps({"hosts": {"farm1": {"address": "farm1.example"}}}))
    key = tmp_path / "repos.env"
    key.write_text("ANTHROPIC_API_KEY=sk-ant-test-start-0000000000\n")
    key.chmod(0o600)
    (tmp_path / "config.toml").write_text(f'# the operator\'s\nkey_source = "file:{key}"\nhost = "farm1"\n')
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "FARMHAND_CONFIG": str(tmp_path / "config.toml"),
        "STARTED": str(tmp_path / "started"),
        "LANG": "C.UTF-8",
    }


@pytest.mark.parametrize(("entry", "arguments"), [("claude_cheap", ["hi"]), ("main", ["run", "--model", "opus", "hi"])])
def test_an_ordinary_call_imports_nothing_heavy(environment: dict[str, str], entry: str, arguments: list[str]) -> None:
    # Without site: a .pth file of the developer's venv may import what it likes.
    paths = [str(Path(__file__).resolve().parents[3] / "src"), str(Path(msgspec.__file__).parent.parent)]
    program = f"import sys\nsys.path[:0] = {paths!r}\n" + PROGRAM.format(heavy=HEAVY, entry=entry)
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "LOADED []\n")
    assert Path(environment["STARTED"]).read_text() == "ssh\n"


def test_a_key_that_is_missing_ends_the_ssh_that_is_on_its_way(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "repos.env").write_text("NOTHING=1\n")
    done = subprocess.run(
        [sys.executable, "-c", "from farmhand.cli import claude_cheap; claude_cheap()", "hi"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "sets no ANTHROPIC_API_KEY" in done.stderr


def test_a_shell_that_completes_is_answered_by_click(environment: dict[str, str]) -> None:
    asked = {"_CLAUDE_CHEAP_COMPLETE": "bash_complete", "COMP_WORDS": "claude-cheap --connect", "COMP_CWORD": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'claude-cheap'; from farmhand.cli import claude_cheap as c; c()",
        ],
        env=environment | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "plain,--connect-timeout\n"


@pytest.mark.parametrize(
    ("entry", "module", "called"),
    [
        ("main", "app", "farmhand"),
        ("claude_cheap", "arguments", "claude-cheap"),
        ("claude_agent_aws", "code", "claude-agent-aws"),
    ],
)
def test_ctrl_c_while_it_starts_is_one_line(entry: str, module: str, called: str) -> None:
    program = f"""
import sys
class Stopped:
    def find_spec(self, name, path=None, target=None):
        if name == "farmhand.cli.{module}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopped())
sys.argv[1:] = ["code", "x", "y"]
from farmhand.cli import {entry}
{entry}()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, f"{called}: stopped\n")
