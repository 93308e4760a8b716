"""The credential that the tasks of an environment get, and what may run on it."""

from __future__ import annotations

import time

from farmhand.aws.client import Aws
from farmhand.aws.credentials.credential import TERMS, stamp
from farmhand.aws.credentials.expiry import ExpiryTable
from farmhand.aws.environment.stacks import Stack
from farmhand.core.errors import NotConfigured, Refused
from farmhand.core.settings import Settings
from farmhand.core.task_access import OF_A_PLAN

FEDERATION = "federation"
_NONE = "none"


def kind_of(base: Stack, network: Stack) -> str:
    """Return the kind of the environment's credential, by the parameters of its stacks. Raise NotConfigured."""
    kind = base.parameters.get("CredentialKind") or "key"
    if kind != _NONE:
        return kind
    if not base.parameters.get("FederationRule"):
        hint = "farmhand cloud credential put --kind federation; or farmhand cloud up -e aws_credential_kind=key"
        raise NotConfigured(f"the tasks of {base.name} have no credential: no secret, and no federation", hint=hint)
    check_sts(network)
    return FEDERATION


def check_sts(network: Stack) -> None:
    """Raise NotConfigured if a task in that network does not reach sts."""
    closed = network.outputs.get("NetworkMode", "private") == "private"
    if closed and network.parameters.get("Federation") != "true":
        hint = "farmhand cloud up -e aws_federation=true adds it"
        raise NotConfigured(f"{network.name} has no endpoint of sts, which a federation needs", hint=hint)


def check_allowed(conf: Settings, *, subscription: bool) -> None:
    """Raise Refused if the operator's plan is asked for and the settings do not allow it. Nothing is asked for it."""
    if subscription and not conf.allow_subscription_cloud:
        raise Refused("--subscription is off: allow_subscription_cloud is not set", hint=TERMS, code="subscription_off")


def check_kind(kind: str, environment: str, *, subscription: bool, batch: bool = False) -> None:
    """Raise Refused if such work must not run on a credential of that kind."""
    of_plan = kind in OF_A_PLAN
    if of_plan and batch:
        hint = "farmhand cloud up -e aws_credential_kind=key, or another aws_environment"
        raise Refused(f"a batch never runs on your plan, and the {kind} of {environment} is of it", hint=hint)
    if of_plan and not subscription:
        hint = "--subscription uses it for this task; farmhand cloud up -e aws_credential_kind=key changes it"
        raise Refused(f"the credential of {environment} is a {kind}, which is of your plan", hint=hint)
    if subscription and not of_plan:
        what = f"the credential of {environment} is a {kind}, and --subscription is for a setup-token or a login"
        raise Refused(what, hint="farmhand cloud up -e aws_credential_kind=setup-token, in an environment of its own")


def end_note(aws: Aws, kind: str, limit_s: float) -> str:
    """Return a line if a plan's token ends before a task of `limit_s` seconds may. Raise Refused if it has ended."""
    entry = ExpiryTable(aws).get(kind) if kind in OF_A_PLAN else None
    if entry is None or entry.expires_at is None:
        return ""
    left, when = entry.expires_at - time.time(), stamp(entry.expires_at)
    if left <= 0:
        hint = f"renew it here, then: farmhand cloud credential put --kind {kind}"
        raise Refused(f"the {kind} on AWS has ended at {when}", hint=hint)
    if left >= limit_s:
        return ""
    return f"the {kind} ends at {when}, in {left / 60:.0f} min, and the task may take {limit_s / 60:.0f} min"
