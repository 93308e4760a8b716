"""The names of what Farmhand makes on AWS: one environment of one account in one region.

The templates in aws/ use the same names; `tests/unit/aws/test_names.py` compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Sources: the 63 characters of a bucket's name, and the hyphens of a repository's in ECR, which stand alone. The stack
#: of the environment prod-data would be that of prod's data.
_ENVIRONMENT = re.compile(r"[a-z]([a-z0-9]|-(?=[a-z0-9])){0,19}(?<!-data)(?<!-watch)(?<!-network)")
ENVIRONMENT_RULE = "at most 20 lower-case letters, digits and single -, and not ending with -data, -watch or -network"
#: The kinds of credentials.
KINDS = ("key", "setup-token", "login", "git")
TAG_ENVIRONMENT, TAG_BATCH, TAG_TASK, TAG_EXPIRES = (
    f"farmhand:{name}" for name in ("environment", "batch", "task", "expires-at")
)
#: The last part of the name of the image in the registry.
REPOSITORY = "farmhand-worker"
#: The same of the image with a credential in it, and its name on the machine that made it.
BAKED_REPOSITORY = "farmhand-worker-baked"


def is_environment(text: str) -> bool:
    """Return whether `text` may name an environment."""
    return _ENVIRONMENT.fullmatch(text) is not None


@dataclass(frozen=True)
class Names:
    """The names in `environment`. `account` has 12 digits, `region` is like us-east-1; only `bucket` needs them."""

    environment: str
    account: str = ""
    region: str = ""

    @property
    def base(self) -> str:
        """The stack of what tasks need, and the prefix of all other names; cluster and table have it as theirs."""
        return f"farmhand-{self.environment}"

    @property
    def data(self) -> str:
        """The stack of what holds data, and stays."""
        return f"{self.base}-data"

    @property
    def watch(self) -> str:
        """The stack of what watches."""
        return f"{self.base}-watch"

    @property
    def network(self) -> str:
        """The stack of what costs by the hour."""
        return f"{self.base}-network"

    @property
    def stacks(self) -> tuple[str, ...]:
        """All stacks, in the order in which they are made. The base stack has the outputs of the data stack as well."""
        return (self.data, self.base, self.watch, self.network)

    def host_stack(self, host: str) -> str:
        """The stack of a farm host's alarms. No environment has a capital letter, so no other stack has this name."""
        return f"{self.base}-Host-{re.sub(r'[._]', '-', host)}"

    @property
    def repository(self) -> str:
        """The registry's repository of the image."""
        return f"{self.base}/{REPOSITORY}"

    @property
    def baked_repository(self) -> str:
        """The registry's repository of images with a credential in them."""
        return f"{self.base}/{BAKED_REPOSITORY}"

    @property
    def trail_bucket(self) -> str:
        """The bucket of the trail."""
        return f"{self.bucket}-trail"

    @property
    def bucket(self) -> str:
        """The bucket of batches and credentials."""
        return f"{self.base}-{self.account}-{self.region}"

    @property
    def logs(self) -> str:
        """The log group."""
        return f"/farmhand/{self.environment}"

    def secret(self, kind: str) -> str:
        """The secret of a kind of credential."""
        return f"farmhand/{self.environment}/{kind}"

    def credential_key(self, kind: str, *, client_side: bool = False) -> str:
        """The bucket's key of a credential."""
        return f"{self.environment}/credentials/{kind}.json{'.esdk' if client_side else ''}"

    def queue(self, *, spot: bool) -> str:
        """The job queue."""
        return f"{self.base}-{'spot' if spot else 'on-demand'}"

    def definition(self, size: str) -> str:
        """The family of a task definition, and the name of a job definition: sizes are api, cli and code."""
        return f"{self.base}-{size}"
