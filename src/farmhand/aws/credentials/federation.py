"""Workload identity federation: no credential, but ids that say who may get one.

They are parameters of the base stack. The template has the parameters of PARAMETERS, "" by default. An id is no secret.
"""

from __future__ import annotations

import re
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.keys import KEY

#: Option → parameter of the base stack.
PARAMETERS = {
    "rule": "FederationRule",
    "organization": "FederationOrganization",
    "service_account": "FederationServiceAccount",
    "workspace": "FederationWorkspace",
}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{3,127}")


def check_ids(ids: dict[str, str]) -> None:
    """Check the ids by option. Raise UsageError."""
    for name in ("rule", "organization"):
        if not ids.get(name):
            raise UsageError(f"--kind federation needs --{name}")
    for name, text in ids.items():
        if text and (KEY.search(text) or not _ID.fullmatch(text)):
            raise UsageError(f"--{name.replace('_', '-')} is not an id of letters, digits, _ and -")


def put_ids(aws: Aws, ids: dict[str, str], *, check: bool = False) -> tuple[bool, dict[str, str]]:
    """Set the parameters of the base stack; with `check` only compare.

    Return whether they differ, and the ids before. Raise FarmhandError.
    """
    check_ids(ids)
    name, client = aws.names.base, aws.client("cloudformation")
    with explained(f"looking at the stack {name}"):
        try:
            [stack] = client.describe_stacks(StackName=name)["Stacks"]
        except Exception as error:
            if code_of(error) != "ValidationError":
                raise
            raise NotConfigured(f"there is no stack {name}", hint="farmhand cloud up makes it") from None
    held = {entry["ParameterKey"]: entry.get("ParameterValue", "") for entry in stack.get("Parameters") or []}
    if missing := [parameter for parameter in PARAMETERS.values() if parameter not in held]:
        hint = "farmhand cloud up brings it up to date"
        raise NotConfigured(f"the stack {name} has no parameter {missing[0]}", hint=hint)
    before = {option: held[parameter] for option, parameter in PARAMETERS.items()}
    wanted = {option: ids.get(option, "") for option in PARAMETERS}
    if before == wanted or check:
        return before != wanted, before
    new = {PARAMETERS[option]: text for option, text in wanted.items()}
    parameters: list[dict[str, Any]] = [
        {"ParameterKey": key, "ParameterValue": new[key]}
        if key in new
        else {"ParameterKey": key, "UsePreviousValue": True}
        for key in held
    ]
    with explained(f"updating the stack {name}"):
        client.update_stack(
            StackName=name, UsePreviousTemplate=True, Parameters=parameters, Capabilities=["CAPABILITY_NAMED_IAM"]
        )
        client.get_waiter("stack_update_complete").wait(StackName=name)
    return True, before
