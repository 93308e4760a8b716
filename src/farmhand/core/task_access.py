"""What a task on AWS may use beside the environment's key: another credential, and a repository that it fetches."""

from __future__ import annotations

from typing import Annotated

import msgspec

# More of the environment of the agent container; see shard.
FEDERATION = "FARMHAND_FEDERATION"
"""The ids of a federation rule: rule, organization, service account, workspace, with commas between."""
SOURCE = "FARMHAND_CREDENTIAL_SOURCE"
"""`s3://BUCKET/KEY`, `federation` or BAKED: where one task's credential is, in the place of the secret."""
BAKED = "image:"
"""The credential is in the agent container's own image, in BAKED_FILE, which only its user can read."""
BAKED_FILE = "/opt/farmhand/credential"
PLAN = "FARMHAND_SUBSCRIPTION"
"""`true` if the operator asked for their own plan: otherwise an object with a token of it is refused."""
GIT_LOGIN = "FARMHAND_GIT_TOKEN"
"""The git token, by `secrets` of the definition of repository tasks; taken out of the environment first thing."""

#: The kinds of the operator's own plan. Only the CLI runs on them, one task at a time.
OF_A_PLAN = ("setup-token", "login")
#: The kinds that tasks take from an image.
OF_AN_IMAGE = ("key", "setup-token")


class CloneOrder(msgspec.Struct, kw_only=True):
    """A repository that the container fetches itself: `ref` at `url`, with `depth` commits of history, 0 for all."""

    url: str
    ref: str = "HEAD"
    depth: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1
    allow_ci: bool = False
