"""What the deployed policies allow, by an evaluator that is not ours: npm's @cloud-copilot/iam-simulate.

Its packages are pinned by name and digest in tests/data/aws/iam/package-lock.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FILES = Path(__file__).resolve().parents[1] / "data/aws/iam"
_ROOT = Path("/var/tmp/farmhand-tests")


@dataclass(frozen=True)
class Ask:
    """May `who` (an ARN with these policies) do `action` on `resource`?"""

    who: str
    action: str
    resource: str
    context: dict[str, Any] = field(default_factory=dict)
    identity: tuple[Any, ...] = ()
    on_resource: Any = None


def allowed(asks: list[Ask], account: str) -> list[bool]:
    """The answers, in order. A request comes by TLS unless its context says otherwise."""
    rows = [
        {
            "principal": ask.who,
            "action": ask.action,
            "resource": ask.resource,
            "account": account,
            "context": {"aws:SecureTransport": "true", "aws:PrincipalArn": ask.who, **ask.context},
            "identity": list(ask.identity),
            "resourcePolicy": ask.on_resource,
        }
        for ask in asks
    ]
    done = subprocess.run(
        ["node", "simulate.mjs"], cwd=_installed(), input=json.dumps(rows), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for ask, answer in zip(asks, answers, strict=True):
        assert "error" not in answer, f"{ask}: {answer}"
    return [answer["result"] == "Allowed" for answer in answers]


@cache
def _installed() -> Path:
    """The directory with the packages, installed once for this lock."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_FILES.iterdir()))).hexdigest()[:12]
    target = _ROOT / f"iam-{digest}"
    if not (target / "node_modules/.package-lock.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(_FILES, target)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=target, check=True)
    return target
