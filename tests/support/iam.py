"""What the deployed policies allow, by an evaluator that is not ours: npm's @cloud-copilot/iam-simulate.

Its packages are pinned by name and digest in tests/data/aws/iam/package-lock.json.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.node import installed

_FILES = Path(__file__).resolve().parents[1] / "data/aws/iam"


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
        ["node", "simulate.mjs"],
        cwd=installed(_FILES),
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for ask, answer in zip(asks, answers, strict=True):
        assert "error" not in answer, f"{ask}: {answer}"
    return [answer["result"] == "Allowed" for answer in answers]
