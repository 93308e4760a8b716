"""The operator's own plan serves one task at a time: a table's item has the id of that task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.environment import running
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import FarmhandError, FarmUnreachable, Refused
from farmhand.core.shard import PK

#: Seconds after which a task that was begun is listed by AWS.
_LISTED_S = 120.0
#: Seconds that three starts may take, beside the task itself.
_STARTS_S = 1800.0
_REFUSED = "ConditionalCheckFailedException"


class PlanLock:
    """The plan of an environment. Every method raises FarmhandError."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._pk = {PK: {"S": f"plan#{aws.names.environment}"}}

    @contextmanager
    def held(self, task_id: str, limit_s: float) -> Iterator[None]:
        """Have it for the task in the body. It is not given back where the task may still run."""
        self.take(task_id, limit_s + _STARTS_S)
        try:
            yield
        except FarmhandError as error:
            if not isinstance(error, FarmUnreachable):
                self.give_back(task_id)
            raise
        self.give_back(task_id)

    def take(self, task_id: str, limit_s: float) -> None:
        """Take it for the task, which lasts up to `limit_s` seconds. Raise Refused while another one has it.

        What a command that died has left behind is taken over when its task does not run.
        """
        if self._take(task_id, limit_s, "attribute_not_exists(#pk) OR #holder = :me OR #until < :now", {}):
            return
        found = self._call("get_item", Key=self._pk, ConsistentRead=True).get("Item") or {}
        holder = str(found.get("holder", {}).get("S", ""))
        since = float(found.get("since", {}).get("N", "0"))
        left = time.time() - since > _LISTED_S and holder not in {one.task for one in running.everything(self._aws)}
        if left and self._take(task_id, limit_s, "#holder = :holder", {":holder": {"S": holder}}):
            return
        hint = f"wait for it, or end it: farmhand cloud cancel {holder}"
        raise Refused(f"the task {holder} runs on your plan, which serves one at a time", hint=hint)

    def give_back(self, task_id: str) -> None:
        """Give it back, if the task has it."""
        names, values = {"#holder": "holder"}, {":me": {"S": task_id}}
        about = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
        self._conditionally("delete_item", Key=self._pk, ConditionExpression="#holder = :me", **about)

    def _take(self, task_id: str, limit_s: float, condition: str, more: dict[str, Any]) -> bool:
        now = int(time.time())
        values = {":me": {"S": task_id}, ":now": {"N": str(now)}, ":until": {"N": str(int(now + limit_s))}, **more}
        names = {f"#{name}": name for name in ("pk", "holder", "until", "since") if f"#{name}" in condition}
        return self._conditionally(
            "update_item",
            Key=self._pk,
            UpdateExpression="SET #holder = :me, #since = :now, #until = :until",
            ConditionExpression=condition,
            ExpressionAttributeNames=names | {f"#{name}": name for name in ("holder", "since", "until")},
            ExpressionAttributeValues=values,
        )

    def _conditionally(self, action: str, **given: Any) -> bool:
        """Return whether the call's condition held."""
        with explained("using the item of your plan"):
            try:
                getattr(self._aws.client("dynamodb"), action)(TableName=self._aws.names.base, **given)
            except Exception as error:
                if code_of(error) != _REFUSED:
                    raise
                return False
        return True

    def _call(self, action: str, **given: Any) -> dict[str, Any]:
        with explained("using the item of your plan"):
            found: dict[str, Any] = getattr(self._aws.client("dynamodb"), action)(
                TableName=self._aws.names.base, **given
            )
        return found
