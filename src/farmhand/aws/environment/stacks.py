"""The stacks of an environment: what state they are in, why one failed, and how they go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import FarmhandError, NotConfigured

#: States from which a stack cannot be updated. Source: CloudFormation's stack status codes.
STUCK = frozenset(
    {
        *("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED"),
        *("REVIEW_IN_PROGRESS", "IMPORT_ROLLBACK_FAILED"),
    }
)
#: States of a stack whose first creation failed, or was only begun: nothing is in it.
_NEVER_MADE = frozenset({"ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"})
#: The most bytes of a template in a call. Source: CloudFormation's quotas, TemplateBody.
TEMPLATE_BYTES = 51_200
_POLL_S, _DELETE_S = 2.0, 1800.0
#: A resource that was never made because another failed says only that.
_CONSEQUENCES = ("Resource creation cancelled", "Resource update cancelled", "Resource deletion cancelled")


@dataclass(frozen=True)
class Stack:
    """A stack. `made_at` is in Unix seconds, and so is `removed_at`, 0 as long as it is there."""

    name: str
    status: str
    reason: str
    outputs: dict[str, str]
    parameters: dict[str, str]
    made_at: float
    removed_at: float = 0.0

    @property
    def stuck(self) -> bool:
        """Return whether it cannot be updated."""
        return self.status in STUCK

    @property
    def never_made(self) -> bool:
        """Return whether nothing is in it, so that nothing is lost when it is removed."""
        return self.status in _NEVER_MADE

    @property
    def changing(self) -> bool:
        """Return whether somebody is changing it now."""
        return self.status.endswith("_IN_PROGRESS") and not self.stuck


class Stacks:
    """The stacks of the environment that `aws` is set to. Every method raises FarmhandError."""

    def __init__(self, aws: Aws, sleep: Callable[[float], None] = time.sleep) -> None:
        self._aws = aws
        self._sleep = sleep

    def look(self, name: str) -> Stack | None:
        """Return the stack called `name`, None if there is none."""
        with explained(f"looking at the stack {name}"):
            try:
                [found] = self._aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
            except Exception as error:
                if code_of(error) == "ValidationError" and "does not exist" in str(error):
                    return None
                raise
        made, gone = found.get("CreationTime"), found.get("DeletionTime")
        return Stack(
            str(found["StackName"]),
            str(found["StackStatus"]),
            " ".join(str(found.get("StackStatusReason") or "").split()),
            {output["OutputKey"]: str(output.get("OutputValue", "")) for output in found.get("Outputs") or []},
            {given["ParameterKey"]: str(given.get("ParameterValue", "")) for given in found.get("Parameters") or []},
            made.timestamp() if isinstance(made, datetime) else datetime.now(UTC).timestamp(),
            _moment(gone),
        )

    def removed(self, name: str, since: float) -> list[Stack]:
        """Return the stacks called `name` that were removed since `since` (Unix seconds), the oldest first.

        CloudFormation knows them for 90 days. Source: the API's reference, ListStacks.
        """
        with explained("looking for stacks that were removed"):
            pages = self._aws.client("cloudformation").get_paginator("list_stacks")
            ids = [
                str(one["StackId"])
                for page in pages.paginate(StackStatusFilter=["DELETE_COMPLETE"])
                for one in page["StackSummaries"]
                if one["StackName"] == name and _moment(one.get("DeletionTime")) >= since
            ]
        found = [stack for stack in map(self.look, ids) if stack is not None and stack.removed_at]
        return sorted(found, key=lambda stack: stack.made_at)

    def all(self) -> dict[str, Stack | None]:
        """Return every stack by its name, in the order in which they are made."""
        return {name: self.look(name) for name in (*self._aws.names.stacks, *self.hosts())}

    def hosts(self) -> tuple[str, ...]:
        """Return the names of the stacks of farm hosts' alarms: the stack that watches names the hosts."""
        watch = self.look(self._aws.names.watch)
        listed = watch.parameters.get("FarmHosts", "") if watch else ""
        return tuple(self._aws.names.host_stack(host) for host in listed.split(",") if host)

    def require(self, name: str) -> Stack:
        """Return the stack called `name`, which has to be there and usable."""
        stack = self.look(name)
        if stack is None:
            where = f"account {self._aws.account}, region {self._aws.region}"
            raise NotConfigured(f"there is no stack {name} ({where})", hint="farmhand cloud up makes it")
        self.check_usable(stack)
        return stack

    def check_usable(self, stack: Stack) -> None:
        """Raise NotConfigured if the stack cannot be updated: why, and what to do."""
        if stack.changing:
            hint = "wait for the command that does it, or see: aws cloudformation describe-stack-events"
            raise NotConfigured(f"the stack {stack.name} is being changed: {stack.status}", hint=hint)
        if stack.stuck:
            why = self.first_failure(stack.name) or stack.reason or "no reason is given"
            raise NotConfigured(f"the stack {stack.name} is in state {stack.status}: {why}", hint=self.way_out(stack))

    def way_out(self, stack: Stack) -> str:
        """Return what to do about a stack that failed.

        Seen by others (org-formation/org-formation-cli#455): what is only stuck in a rollback was removed.
        """
        if stack.status == "UPDATE_ROLLBACK_FAILED":
            return f"aws cloudformation continue-update-rollback --stack-name {stack.name}; then farmhand cloud up"
        if not stack.stuck:
            return "then run it again"
        if stack.name == self._aws.names.data and not stack.never_made:
            return "its data is still there: only farmhand cloud down --delete-data removes the stack, with all of it"
        return "farmhand cloud down removes it; then farmhand cloud up"

    def first_failure(self, name: str, since: float = 0.0) -> str:
        """Return resource and reason of what failed first in the stack's last change, "" if nothing did."""
        found = ""
        for event in self._events(name):
            if event["Timestamp"].timestamp() < since:
                break
            status, kind = str(event.get("ResourceStatus", "")), str(event.get("ResourceType", ""))
            reason = " ".join(str(event.get("ResourceStatusReason") or "").split())
            own = kind == "AWS::CloudFormation::Stack"
            if status.endswith("_FAILED") and not reason.startswith(_CONSEQUENCES):
                found = reason if own else f"{event['LogicalResourceId']} ({kind}): {reason}"
            begins = own and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
            # What came before belongs to an earlier change, of which this one may be the clean-up.
            if begins and (found or status == "CREATE_IN_PROGRESS"):
                break
        return found

    def delete(self, name: str) -> bool:
        """Delete a stack and wait. Return whether it was there."""
        if self.look(name) is None:
            return False
        began = time.time()
        with explained(f"removing the stack {name}"):
            self._aws.client("cloudformation").delete_stack(StackName=name)
        while stack := self.look(name):
            if stack.status == "DELETE_FAILED":
                why = self.first_failure(name, began - 60) or stack.reason
                raise FarmhandError(f"the stack {name} cannot be removed: {why}", hint="then run it again")
            if stack.status == "DELETE_COMPLETE":
                break
            if time.time() - began > _DELETE_S:
                raise FarmhandError(f"the stack {name} is still in state {stack.status}", hint="look again later")
            self._sleep(_POLL_S)
        return True

    def _events(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the stack's events, the newest first."""
        with explained(f"reading the events of the stack {name}"):
            for page in (
                self._aws.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=name)
            ):
                yield from page["StackEvents"]


def _moment(given: Any) -> float:
    return given.timestamp() if isinstance(given, datetime) else 0.0
