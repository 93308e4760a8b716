"""A batch on AWS Batch in real containers: its command, what it wrote, and its money."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farmhand.aws.names import Names
from farmhand.cloud.ledger_rows import spent_in
from farmhand.core.money import PICO_PER_USD
from farmhand.core.prices import price_table
from farmhand.core.shard import BatchItem, batch_pk, read_item, read_ledger
from farmhand.core.task import Usage
from tests.support.aws_site import AwsSite


class AwsBatch:
    """The batch `name` of these tasks, each with its id, in shards of `shard`, in an environment of the site."""

    def __init__(
        self,
        site: AwsSite,
        directory: Path,
        name: str,
        tasks: list[dict[str, Any]],
        *words: str,
        shard: int,
        names: Names | None = None,
    ) -> None:
        self.site, self.name, self.names = site, name, names or site.names
        self.ids = [str(task["id"]) for task in tasks]
        self.children = -(-len(tasks) // shard)
        self._out = directory / f"{name}.jsonl"
        given = directory / f"{name}.in.jsonl"
        given.write_text("".join(json.dumps(task) + "\n" for task in tasks))
        self.argv = ["batch", str(given), "--out", str(self._out), "--place", "aws-batch"]
        self.argv += ["--batch", name, "--shard", str(shard), *words]
        self.environ = {"FARMHAND_AWS_ENVIRONMENT": self.names.environment}

    def end(self, *more: str) -> dict[str, Any]:
        """Give the command until it has ended, and return its summary."""
        done = self.site.farmhand(*self.argv, *more, "--json", timeout_s=900, environ=self.environ)
        assert done.returncode == 0, done.stderr
        whole: dict[str, Any] = json.loads(done.stdout)
        return whole

    def results(self) -> list[dict[str, Any]]:
        """What is in the output."""
        return [json.loads(line) for line in self._out.read_text().splitlines()] if self._out.exists() else []

    def item(self) -> BatchItem:
        """The batch's item in the table."""
        key = {"pk": {"S": batch_pk(self.name)}}
        found = self.site.aws.client("dynamodb").get_item(TableName=self.names.base, Key=key)["Item"]
        return read_item({name: value for name, value in found.items() if name != "pk"})

    def spent(self) -> float:
        """The sum of its ledgers, in US$."""
        return self.site.ledgers(self.name, self.names)

    def spent_pico(self) -> int:
        """The same in pico-dollars, in which the ledgers are exact."""
        texts = self.site.objects(f"/{self.name}/ledger/", self.names).values()
        return sum(spent_in(row) for text in texts for row in read_ledger(text)[1])

    def posts(self) -> list[dict[str, Any]]:
        """What the API has answered of it, by the batch's name in the prompts."""
        return self.site.posts(f"of {self.name}")

    def billed_pico(self) -> int:
        """What the API itself says that it has charged for it."""
        return billed_pico(self.posts())

    def check(self, whole: dict[str, Any]) -> None:
        """Every id once, the cost that of the ledgers to the last digit, no lease left, nothing beyond the limit."""
        results = self.results()
        assert Counter(result["id"] for result in results) == Counter(self.ids)
        assert {result["state"] for result in results} == {"succeeded"}
        assert (whole["total"], whole["done"], whole["failed"]) == (len(self.ids), len(self.ids), 0)
        spent = self.spent()
        assert whole["cost_usd"] == pytest.approx(spent, abs=1e-9)
        assert sum(result["cost_usd"] for result in results) <= whole["cost_usd"] + 1e-9
        item = self.item()
        assert (item.leased, item.leases) == (0, {})
        assert item.spent == pytest.approx(spent * PICO_PER_USD, abs=1000)
        assert item.limit is not None
        assert item.taken == item.spent + item.uncertain <= item.limit


def lines(name: str, number: int, **more: Any) -> list[dict[str, Any]]:
    """So many small tasks; the name of the batch is in each prompt."""
    return [{"id": f"line{n}", "prompt": f"line {n} of {name}", "max_tokens": 200, **more} for n in range(number)]


def pico(usd: str) -> int:
    """US$ as pico-dollars."""
    return int(Decimal(usd) * PICO_PER_USD)


def billed_pico(posts: list[dict[str, Any]]) -> int:
    """What the API has charged for these requests of its log."""
    total = 0
    for post in posts:
        usage = {name: n for name, n in post.get("usage", {}).items() if name in Usage.__struct_fields__}
        total += (price_table().cost(post["model"], Usage(**usage)) or 0) if usage else 0
    return total
