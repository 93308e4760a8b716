"""The bucket's keys of a batch or a single task on AWS; core.shard says what is at each."""

from __future__ import annotations

import re
from typing import NamedTuple

_TRY = re.compile(r"in/runs/([1-9]\d{0,8})\.json", re.ASCII)
_PART = re.compile(r"(\d+)/(\d{5})/(\d+)-(\d{4,})\.jsonl")
_IN = re.compile(r"(?P<base>.+/)in/(?:(?P<generation>\d+)/|(?:order|verify)\.json)")


class PartName(NamedTuple):
    """Whose part an object is. Parts in this order: the first result of an id counts."""

    generation: int
    shard: int
    attempt: int
    part: int

    @property
    def path(self) -> str:
        """Return the name below `out/` and `ledger/`."""
        return f"{self.generation}/{self.shard:05d}/{self.attempt}-{self.part:04d}.jsonl"


class BatchKeys(NamedTuple):
    """The bucket's keys of a batch or a single task; `base` ends in `/`."""

    base: str

    @classmethod
    def of(cls, environment: str, batch: str) -> BatchKeys:
        """Return the keys of `batch` in `environment`."""
        return cls(f"{environment}/batches/{batch}/")

    def order(self, generation: int) -> str:
        """Return FARMHAND_ORDER of a generation."""
        return f"{self.base}in/{generation}/"

    def manifest(self, generation: int) -> str:
        """Return the key of a generation's manifest."""
        return f"{self.order(generation)}manifest.json"

    def tasks(self, generation: int, shard: int) -> str:
        """Return the key of a shard's tasks."""
        return f"{self.order(generation)}{shard:05d}.jsonl"

    def prompt(self, generation: int, task_id: str) -> str:
        """Return the key of a long prompt."""
        return f"{self.order(generation)}prompts/{task_id}"

    def results(self, generation: int | None = None, shard: int | None = None) -> str:
        """Return the prefix of the results: of a shard, a generation, or all."""
        return self._below("out", generation, shard)

    def ledgers(self, generation: int | None = None, shard: int | None = None) -> str:
        """Return the prefix of the ledgers' parts: of a shard, a generation, or all."""
        return self._below("ledger", generation, shard)

    def _below(self, what: str, generation: int | None, shard: int | None) -> str:
        rest = "" if generation is None else f"{generation}/" if shard is None else f"{generation}/{shard:05d}/"
        return f"{self.base}{what}/{rest}"

    def part_of(self, key: str) -> PartName | None:
        """Return whose part a key below results() or ledgers() is, None for any other key."""
        for prefix in (self.results(), self.ledgers()):
            if key.startswith(prefix) and (found := _PART.fullmatch(key.removeprefix(prefix))):
                return PartName(*map(int, found.groups()))
        return None

    @property
    def single(self) -> str:
        """Return FARMHAND_ORDER of a single task."""
        return f"{self.base}in/order.json"

    @property
    def verify(self) -> str:
        """Return FARMHAND_ORDER of a look at the containers."""
        return f"{self.base}in/verify.json"

    @property
    def bundle(self) -> str:
        """Return the key of a repository task's bundle."""
        return f"{self.base}in/source.bundle"

    def tried(self, number: int) -> str:
        """Return the key of what a try of a single task came to."""
        return f"{self.base}in/runs/{number}.json"

    def try_of(self, key: str) -> int | None:
        """Return the number of the try whose key this is, None for any other key.

        The task role may write whatever has `/out/` or `/ledger/` in its key, below in/runs/ too.
        """
        found = _TRY.fullmatch(key.removeprefix(self.base)) if key.startswith(self.base) else None
        return int(found[1]) if found else None

    def output(self, name: str) -> str:
        """Return the key of a file that a single task leaves; `result.json` is the SingleResult."""
        return f"{self.base}out/{name}"


def read_order(key: str) -> tuple[BatchKeys, int | None]:
    """Return the keys and the generation of FARMHAND_ORDER, None for an order without one. Raise ValueError."""
    found = _IN.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r:.200} is no key of an order: it ends in in/G/, in/order.json or in/verify.json")
    generation = found["generation"]
    return BatchKeys(found["base"]), None if generation is None else int(generation)
