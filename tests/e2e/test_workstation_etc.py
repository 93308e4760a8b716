"""The workstation's files in /etc, in a container whose operator is root: what PAM, bash and sh make of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.farm.container import IMAGE

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-ant-test-first-0000000000"
#: Runs as root in the container. The shells are asked with `su`, which goes through PAM.
INSIDE = r"""
import json, pathlib, subprocess, sys
from farmhand.billing import find
from farmhand.billing.outcome import absent, present
from farmhand.billing.wanted import Wanted
from farmhand.billing.store import Store

files = {pathlib.Path(path): text for path, text in json.load(open("/case.json")).items()}
for path, text in files.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
before = {path: path.read_bytes() for path in files}
NAMES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK")
FLAGS = {"login": "-lc", "interactive": "-ic", "login interactive": "-lic"}

def real():
    found = {}
    for shell in ("bash", "sh"):
        for mode, flag in FLAGS.items():
            inner = f"{shell} {flag} env"
            out = subprocess.run(["su", "root", "-c", inner], capture_output=True, text=True, cwd="/root").stdout
            values = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
            found[f"{shell} {mode}"] = next((n for n in reversed(NAMES) if values.get(n)), "none")
    return found

def told():
    report = find(pathlib.Path("/root"), {}, None, ask=False)
    return {v.kind: v.credential for v in report.verdicts if v.shell in ("bash", "sh")}

store = Store(pathlib.Path("/root/state"))
wanted = Wanted(pathlib.Path("/root"), pathlib.Path("/root/repos.env"), ask=False, date="2026-11-24")
answer = {"before": [real(), told()]}
done = present(wanted, store, write=True)
answer["after"] = [real(), told()]
answer["left"], answer["moved"] = done["left"], done["moved"]
answer["again"] = present(wanted, store, write=True)["changed"]
absent(store, write=True)
answer["restored"] = {path: path.read_bytes() for path in files} == before
sys.stdout.write("ANSWER" + json.dumps(answer))
"""
NOBODY = dict.fromkeys(
    [f"{shell} {mode}" for shell in ("bash", "sh") for mode in ("login", "interactive", "login interactive")], "none"
)
LOGIN = {kind: "ANTHROPIC_API_KEY" for kind in NOBODY if "login" in kind}


@pytest.mark.parametrize(
    ("files", "credentials"),
    [
        (
            {"/etc/environment": f'LANG=C.UTF-8\nANTHROPIC_API_KEY="{KEY}"\n'},
            dict.fromkeys(NOBODY, "ANTHROPIC_API_KEY"),
        ),
        ({"/etc/profile.d/claude.sh": f"export ANTHROPIC_API_KEY={KEY}\n"}, NOBODY | LOGIN),
        (
            {"/etc/bash.bashrc": f'[ -z "$PS1" ] && return\nexport ANTHROPIC_API_KEY={KEY}\n'},
            NOBODY | dict.fromkeys(["bash interactive", "bash login interactive"], "ANTHROPIC_API_KEY"),
        ),
        (
            {
                "/etc/environment": f"ANTHROPIC_API_KEY={KEY}\n",
                "/etc/profile.d/z.sh": "unset ANTHROPIC_API_KEY\nexport CLAUDE_CODE_USE_BEDROCK=1\n",
            },
            {k: "CLAUDE_CODE_USE_BEDROCK" if "login" in k else "ANTHROPIC_API_KEY" for k in NOBODY},
        ),
    ],
    ids=["environment", "profile.d", "bash.bashrc", "both"],
)
def test_etc(tmp_path: Path, files: dict[str, str], credentials: dict[str, str]) -> None:
    case = tmp_path / "case.json"
    case.write_text(json.dumps(files))
    argv = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "/usr/bin/python3"]
    argv += ["--volume", f"{ROOT}/src:/src:ro", "--volume", f"{case}:/case.json:ro"]
    argv += ["--env", "PYTHONPATH=/src", "--env", "PYTHONDONTWRITEBYTECODE=1", IMAGE, "-"]
    done = subprocess.run(argv, input=INSIDE, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.split("ANSWER")[1])
    assert answer["before"] == [credentials, credentials]
    assert answer["after"] == [NOBODY, NOBODY]
    assert (answer["left"], answer["again"], answer["restored"]) == ([], False, True)
    assert len(answer["moved"]) == 1
