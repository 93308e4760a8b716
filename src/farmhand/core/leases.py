"""The updates of a batch's item, as arguments of DynamoDB's update_item: one conditional update each.

A client that gets no answer sends an update again, and both may arrive: every condition names the state that the first
one ends. So a repeated update fails its condition, and the item in that failure shows that the first one counted.
DynamoDB has no arithmetic in conditions; `taken` is there to be compared (see core.shard.BatchItem).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from farmhand.core.shard import PK, LeaseName, Pico, batch_pk, credential_pk

#: A lease is a multiple of this: US$ 0.000001, so that a double holds every sum of them exactly.
GRAIN = 10**6
#: The part of what is left that one lease takes, unless a task needs more.
SHARE = 50


def slice_of(left: Pico, need: Pico) -> Pico:
    """Return how much to lease where `left` is left and `need` is needed: 2 % of it, at least the need, in GRAINs."""
    wanted = max(-(-need // GRAIN) * GRAIN, left // SHARE // GRAIN * GRAIN, GRAIN)
    return wanted if wanted <= left else 0


def lease(batch: str, holder: LeaseName, *, held: Pico, more: Pico, limit: Pico) -> dict[str, Any]:
    """Lease `more` beside what `holder` has held, if the batch runs and its limit allows that."""
    update = "SET #lease = :all ADD #taken :more, #leased :more"
    own = "#lease = :held" if held else "attribute_not_exists(#lease)"
    condition = f"#state = :running AND #limit = :limit AND #taken <= :room AND {own}"
    values = {"all": held + more, "more": more, "limit": limit, "room": limit - more, "running": "running"}
    return _update(batch_pk(batch), update, condition, values | ({"held": held} if held else {}), holder)


def settle(batch: str, holder: LeaseName, *, held: Pico, spent: Pico, uncertain: Pico) -> dict[str, Any]:
    """End the lease of `holder`, which has held `held`: what it has not spent is free again."""
    update = "ADD #taken :back, #leased :ended, #spent :spent, #uncertain :uncertain REMOVE #lease"
    values = {"back": spent + uncertain - held, "ended": -held, "spent": spent, "uncertain": uncertain, "held": held}
    return _update(batch_pk(batch), update, "#lease = :held", values, holder)


def stop(batch: str, reason: str, detail: str) -> dict[str, Any]:
    """Stop the batch, unless it is stopped."""
    values = {"stopping": "stopping", "running": "running", "reason": reason, "detail": detail}
    update = "SET #state = :stopping, #reason = :reason, #detail = :detail"
    return _update(batch_pk(batch), update, "#state = :running", values)


def refuse_credential(environment: str, kind: str, fingerprint: str, now: int) -> dict[str, Any]:
    """Note that the API refuses the credential, unless another one has taken its place."""
    condition = "attribute_not_exists(#fingerprint) OR #fingerprint = :fingerprint"
    values = {"now": now, "fingerprint": fingerprint}
    found = _update(credential_pk(environment, kind), "SET #refused = :now", condition, values)
    # The task role may see no other attribute of that item.
    return found | {"ReturnValues": "NONE", "ReturnValuesOnConditionCheckFailure": "NONE"}


def _update(
    pk: str, update: str, condition: str, values: Mapping[str, object], holder: LeaseName | None = None
) -> dict[str, Any]:
    # Every name is a placeholder: DynamoDB reserves hundreds of words, state and limit among them.
    names = {name: name[1:] for name in re.findall(r"#\w+", f"{update} {condition}")}
    if holder is not None:
        names["#lease"] = holder.attribute
    return {
        "Key": {PK: {"S": pk}},
        "UpdateExpression": update,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {
            f":{name}": {"S": value} if isinstance(value, str) else {"N": str(value)} for name, value in values.items()
        },
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
