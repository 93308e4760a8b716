"""The item of a batch in the environment's table, as the workstation writes it: its state, its limit, lost leases."""

from __future__ import annotations

from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core import leases
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.shard import PK, BatchItem, BatchState, LeaseName, batch_pk, read_item, write_item

_REFUSED = "ConditionalCheckFailedException"


def why_stopped(item: BatchItem, batch: str) -> FarmhandError:
    """Return why the children have stopped by themselves."""
    detail = item.detail or f"the batch has stopped: {item.reason}"
    if item.reason == "budget":
        hint = "what is done is kept: raise --max-usd and give the same command"
        return Refused(f"the budget of the batch has no room for it: {detail}", code="budget", hint=hint)
    hint = f"see: farmhand cloud logs {batch}; then the same command goes on"
    return NotConfigured(detail, code=item.reason or "not_configured", hint=hint)


class BatchTable:
    """The item of one batch. Every method raises FarmhandError for what `explained` knows."""

    def __init__(self, aws: Aws, batch: str) -> None:
        self._aws = aws
        self._key = {PK: {"S": batch_pk(batch)}}
        self._batch = batch

    def read(self) -> BatchItem:
        """Return the item; an absent one has the defaults. Raise FarmhandError `bad_answer` for one that is none."""
        with explained(f"reading the state of the batch {self._batch}"):
            table = self._aws.names.base
            found = self._client.get_item(TableName=table, Key=self._key, ConsistentRead=True).get("Item", {})
        try:
            return read_item({name: value for name, value in found.items() if name != PK})
        except (ValueError, TypeError, KeyError) as error:
            what = f"the item of the batch {self._batch} in the table {table} is damaged: {error}"
            raise FarmhandError(what, code="bad_answer") from None

    def run(self, generation: int) -> None:
        """Say that the batch runs, with `generation` as its latest. The item is made if there is none."""
        with explained(f"writing the state of the batch {self._batch}"):
            try:
                self._client.put_item(
                    TableName=self._aws.names.base,
                    Item=write_item(self._batch, BatchItem(generation=generation)),
                    ConditionExpression=f"attribute_not_exists({PK})",
                )
            except Exception as error:
                if code_of(error) != _REFUSED:
                    raise
        values = {"state": {"S": "running"}, "generation": {"N": str(generation)}, "none": {"S": ""}}
        self._set("SET #state = :state, #generation = :generation, #reason = :none, #detail = :none", values)

    def stop(self, state: BatchState, detail: str) -> None:
        """Make the children stop: for now (`stopping`), or for good (`cancelled`)."""
        values = {"state": {"S": state}, "reason": {"S": "cancel"}, "detail": {"S": detail}}
        self._set("SET #state = :state, #reason = :reason, #detail = :detail", values)

    def limit(self, pico: int | None) -> None:
        """Set what the batch may cost in all; None removes the limit."""
        if pico is None:
            self._set("REMOVE #limit", {})
        else:
            self._set("SET #limit = :limit", {"limit": {"N": str(pico)}})

    def settle(self, generation: int, charged: dict[LeaseName, int]) -> int:
        """End the leases of a generation that has ended, whose holders were killed. Return what is uncertain of them.

        `charged` is what ledgers say of each holder; the rest of its lease may have been spent.
        """
        uncertain = 0
        for holder, held in self.read().leases.items():
            if holder.generation != generation:
                continue
            spent = min(charged.get(holder, 0), held)
            update = leases.settle(self._batch, holder, held=held, spent=spent, uncertain=held - spent)
            with explained(f"settling the budget of the batch {self._batch}"):
                try:
                    self._client.update_item(TableName=self._aws.names.base, **update)
                except Exception as error:
                    # It is settled: by another command, or by a try of this one whose answer was lost.
                    if code_of(error) != _REFUSED:
                        raise
            uncertain += held - spent
        return uncertain

    @property
    def _client(self) -> Any:
        return self._aws.client("dynamodb")

    def _set(self, update: str, values: dict[str, Any]) -> None:
        names = {word.rstrip(","): word[1:].rstrip(",") for word in update.split() if word.startswith("#")}
        about: dict[str, Any] = {"UpdateExpression": update, "ExpressionAttributeNames": names}
        if values:
            about["ExpressionAttributeValues"] = {f":{name}": value for name, value in values.items()}
        with explained(f"writing the state of the batch {self._batch}"):
            self._client.update_item(TableName=self._aws.names.base, Key=self._key, **about)
