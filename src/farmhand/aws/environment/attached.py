"""Who has the environment's policy for operators: IAM deletes no policy that somebody has, so its stack would stay."""

from __future__ import annotations

from farmhand.aws.client import Aws
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import Refused

#: The lists of an answer: what they have, and the name of one.
_KINDS = {"PolicyUsers": "user", "PolicyRoles": "role", "PolicyGroups": "group"}


def check_detached(aws: Aws, stacks: Stacks) -> None:
    """Raise Refused if the policy for operators is attached to somebody.

    Seen by others (gchq/sleeper#3956).
    """
    base = stacks.look(aws.names.base)
    arn = base.outputs.get("OperatorPolicyArn") if base else ""
    if not arn:
        return
    found: list[tuple[str, str]] = []
    with explained("looking for who has the policy for operators"):
        try:
            for page in aws.client("iam").get_paginator("list_entities_for_policy").paginate(PolicyArn=arn):
                found += [(kind, one[f"{kind.title()}Name"]) for part, kind in _KINDS.items() for one in page[part]]
        except Exception as error:
            if code_of(error) != "NoSuchEntity":
                raise
    if found:
        kind, name = found[0]
        who = ", ".join(f"the {kind} {name}" for kind, name in found[:3])
        hint = f"aws iam detach-{kind}-policy --{kind}-name {name} --policy-arn {arn}"
        raise Refused(f"the policy {arn.rpartition('/')[2]} is attached to {who}: it cannot be deleted", hint=hint)
