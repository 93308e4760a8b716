"""A report over made-up ledgers of two hosts, with every kind of thing that can be in one."""

from __future__ import annotations

from farmhand.core.task import Usage
from farmhand.cost.report import CostReport, report
from farmhand.cost.rows import FinishedTask
from farmhand.cost.summary import Basis
from tests.unit.cost.ledgers import DAY, NOW, TABLE, charge, fill, temporary_store

#: What would run if a page took it for markup, and what a spreadsheet would take for a formula.
EVIL = "</script><img src=x onerror=alert(1)>"
EVIL_MODEL = "<!--<script>alert(2)//\u2028"
FORMULA = '=1+"2",3'
USAGE = Usage(
    input_tokens=900, output_tokens=100, cache_creation_input_tokens=100, cache_read_input_tokens=1000
)  # fmt: skip


def made_up() -> CostReport:
    """Haiku on farm1 and opus on farm2 over four days, a failure of each, one model without a price."""
    ways = (
        ("u1", "farm1", "claude-haiku-5-5", "nightly"),
        ("u2", "farm2", "claude-opus-5-5", EVIL),
        ("u3", "farm<b>3", EVIL_MODEL, FORMULA),
    )
    with temporary_store() as store:
        for uuid, host, model, batch in ways:
            rows, tasks = [], []
            for no in range(1, 9):
                at = NOW - (no // 2) * DAY
                rows.append(charge(no, model=model, usage=USAGE, at=at, batch=batch))
                failed = no == 1
                tasks.append(
                    FinishedTask(
                        number=no,
                        state="failed" if failed else "succeeded",
                        error="timeout" if failed else None,
                        model=model,
                        engine="api",
                        batch=batch,
                        created_at=at - 40,
                        started_at=at - 20,
                        finished_at=at,
                        retries=int(no == 2),
                        uncertain=int(failed),
                        cost_usd=rows[-1].cost_usd,
                    )
                )
            fill(store, uuid, rows, tasks, host=host)
        boxes: dict[str, int | None] = {"farm1": 24 * 10**12}
        return report(store, TABLE, Basis(0, NOW, "claude-sonnet-5-5", boxes, {"farm2": f"farm2: {EVIL}"}))
