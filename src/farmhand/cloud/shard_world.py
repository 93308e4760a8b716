"""What the run of a shard works with."""

from __future__ import annotations

from dataclasses import dataclass

from farmhand.cloud.budget_lease import BudgetLease
from farmhand.cloud.calls import ContainerTable
from farmhand.cloud.child import AgentChild, LauncherWatch
from farmhand.cloud.credential import HeldCredential
from farmhand.cloud.ending import StopClock
from farmhand.cloud.ledger_rows import LedgerRows
from farmhand.cloud.parts import PartWriter
from farmhand.cloud.shard_tasks import ShardTasks


@dataclass(kw_only=True)
class ShardWorld:
    """What a shard's run works with. `slots` is how many tasks run at once; `attempt` counts from 1.

    `patience_s` is that of the manifest.
    """

    clock: StopClock
    agent: AgentChild
    table: ContainerTable
    writer: PartWriter
    rows: LedgerRows
    tasks: ShardTasks
    lease: BudgetLease
    credential: HeldCredential
    environment: str
    slots: int
    concurrency: int | None
    attempt: int
    patience_s: float
    launcher: LauncherWatch
