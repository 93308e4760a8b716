"""Which environments of AWS this workstation has sent work to: only those are asked what that cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from farmhand.aws.client import Aws
from farmhand.core.errors import NotConfigured
from farmhand.core.files import replace, xdg
from farmhand.core.settings import Settings


class UsedEnvironment(NamedTuple):
    """An environment in an account and a region, and the login by which work was sent there."""

    environment: str
    region: str
    account: str
    profile: str

    @property
    def host(self) -> str:
        """The name of what ran there among the farm hosts."""
        return f"aws-{self.environment}"


def directory() -> Path:
    """Return the directory of the marks: one file for each environment, account and region."""
    return Path(xdg("XDG_STATE_HOME"), "farmhand", "aws-used")


def mark(aws: Aws, conf: Settings) -> None:
    """Note that work is sent to the environment. Raise NotConfigured if that cannot be written."""
    names = aws.names
    made = UsedEnvironment(names.environment, names.region, names.account, conf.aws_profile)
    path = directory() / f"{made.environment}@{made.account}@{made.region}.json"
    body = json.dumps(made._asdict()).encode()
    try:
        if path.exists() and path.read_bytes() == body:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, body, mode=0o600)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise NotConfigured(what, hint="farmhand cost knows by it what to ask") from None


def used() -> list[UsedEnvironment]:
    """Return the environments that work was sent to. Raise NotConfigured for a mark that cannot be read."""
    found = []
    for path in sorted(directory().glob("*.json")):
        try:
            values = json.loads(path.read_bytes())
            found.append(UsedEnvironment(**{name: str(values[name]) for name in UsedEnvironment._fields}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotConfigured(f"{path} cannot be read: {error}", hint="remove it; the next task writes it") from None
    return found
