"""What ran on AWS, merged into the store: ledgers and containers of each environment that work was sent to.

An environment is a host `aws-ENV` among the others. Each container has a ledger of its own.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from farmhand.aws.client import Aws
from farmhand.aws.environment.idle import NetworkUse, network_use, removed_networks
from farmhand.aws.environment.spent import ContainerSum, SpentRecords
from farmhand.aws.environment.stacks import Stacks
from farmhand.aws.environment.stretches import ContainerRun
from farmhand.aws.environment.used import UsedEnvironment, used
from farmhand.aws.prices import cloud_prices
from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.settings import Settings
from farmhand.core.shard import read_ledger
from farmhand.cost.rows import BadLedger, FinishedTask, LedgerCharge, decode
from farmhand.cost.store import WITHIN_S, ContainerRuns, CostStore, StoreDamaged

#: Objects that are read at the same time, and how often a call is tried: a command that shows figures does not wait.
_AT_ONCE, _TRIES = 16, 2


def login_of(conf: Settings, one: UsedEnvironment) -> Aws:
    """Return AWS as work was sent to this environment. Raise NotConfigured if that login is another account's now."""
    there = conf._replace(aws_environment=one.environment, aws_region=one.region, aws_profile=one.profile)
    aws = Aws(there, tries=_TRIES, connect_s=conf.connect_timeout_s)
    if aws.account != one.account:
        hint = "log in to that account, or set aws_profile"
        raise NotConfigured(f"work was sent to AWS account {one.account}, and the login is {aws.account}'s", hint=hint)
    return aws


def merge_environments(store: CostStore, conf: Settings) -> dict[str, FarmhandError]:
    """Merge what is new of every environment. Return the error of each that could not be asked, by its host's name."""
    errors: dict[str, FarmhandError] = {}
    for one in used():
        try:
            aws = login_of(conf, one)
            _merge(store, one.host, SpentRecords(aws, cloud_prices(aws.region, conf.aws_prices_file)))
        except StoreDamaged:
            raise
        except FarmhandError as error:
            errors[one.host] = error
    return errors


def networks(store: CostStore, conf: Settings, silent: Container[str]) -> list[NetworkUse]:
    """Return the use of every network that is up or was removed lately, by the store's containers.

    Environments that cannot be asked are left out; those among the hosts `silent` are not asked again.
    """
    found = []
    for one in used():
        if one.host in silent:
            continue
        with suppress(FarmhandError):
            aws = login_of(conf, one)
            stacks, name, prices = Stacks(aws), aws.names.network, cloud_prices(aws.region, conf.aws_prices_file)
            address = f"s3://{aws.names.bucket}/"
            query = "SELECT began_at, ended_at FROM container WHERE substr(source, 1, ?) = ? AND pico IS NOT NULL"
            runs = [ContainerRun(*row) for row in store.rows(query, (len(address), address))]
            stack = stacks.look(name)
            found += [network_use(stack, prices, runs)] if stack else []
            found += removed_networks(stacks, name, prices, runs)
    return found


def _merge(store: CostStore, host: str, records: SpentRecords) -> None:
    """Merge what is new in the bucket. Raise FarmhandError for what could not be read, when all else was."""
    until = time.monotonic() + WITHIN_S
    address = f"s3://{records.bucket.name}/"
    known = {key.removeprefix(address) for key in store.was_read(address)}
    damaged: list[FarmhandError] = []
    fresh = [key for key in records.ledgers if key not in known]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for start in range(0, len(fresh), _AT_ONCE):
            some = fresh[start : start + _AT_ONCE]
            for key, body in zip(some, pool.map(records.bucket.get, some), strict=True):
                try:
                    _merge_part(store, host, address, body or b"")
                    store.read_for_good(address + key)
                except BadLedger as error:
                    damaged.append(BadLedger(f"{key}: {error.message}", hint=error.hint))
            if time.monotonic() > until:
                hint = "the same command goes on from there"
                raise BadLedger(f"its ledgers have not ended after {WITHIN_S:g} s", hint=hint)
    for one in records.sums(known):
        # A single task has no batch in its ledger either.
        batch = one.id if one.kind == "batch" else ""
        store.ran(address + one.source, host, batch, _runs(one), settled=one.settled)
    store.asked(host, time.time())
    if trouble := [*damaged, *records.damaged]:
        raise trouble[0]


def _runs(one: ContainerSum) -> Iterator[ContainerRuns]:
    for part in one.stretches:
        yield ContainerRuns(part.began_at, part.ended_at, part.runs, part.seconds, part.pico)
    if one.unknown:
        yield ContainerRuns(0.0, 0.0, one.unknown, 0, None)


def _merge_part(store: CostStore, host: str, address: str, body: bytes) -> None:
    """Merge a part of a container's ledger. Raise BadLedger."""
    try:
        head, charges, finished = read_ledger(body)
    except ValueError as error:
        raise BadLedger(f"it is no part of a ledger: {error}") from None
    rows = [decode(LedgerCharge, line) for line in charges], [decode(FinishedTask, line) for line in finished]
    # With the address, so that no container can name the ledger of a farm host.
    number, _, _ = store.ledger(address + head.ledger, host)
    store.merge(number, LedgerCharge, rows[0])
    store.merge(number, FinishedTask, rows[1])
