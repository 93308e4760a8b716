"""Copying the hosts' histories: all hosts at once, each from where the last copy ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from farmhand.core.errors import FarmhandError, WireError, WireMismatch
from farmhand.history.store import KEPT, HistoryStore
from farmhand.places.hosts import Host
from farmhand.wire.client import Client

#: Seconds after which the copy of one host's history is left as it is; the next one goes on there.
_WITHIN_S = 60.0


class HistorySource(NamedTuple):
    """A host, and its farm as farmhand.core.settings.farm_name has it: hosts of two farms may have one name."""

    farm: str
    host: Host


def refresh(
    store: HistoryStore, sources: Mapping[str, HistorySource], timeouts_s: Mapping[str, float]
) -> dict[str, FarmhandError]:
    """Copy what is new at every host. Return the error of each host that could not be asked."""
    turn = threading.Lock()

    def copy(name: str) -> FarmhandError | None:
        try:
            with Client(sources[name].host.transport(timeouts_s[name])) as client:
                for page in _pages(client, name, *after[name]):
                    with turn:
                        store.add(sources[name].farm, name, page, last=not page.get("more"))
        except WireError as error:
            return error.at(name)
        except WireMismatch as error:
            return error
        return None

    after = {name: store.next_of(source.farm, name) for name, source in sources.items()}
    with ThreadPoolExecutor(max_workers=16) as pool:
        errors = dict(zip(sources, pool.map(copy, sources), strict=True))
    return {name: error for name, error in errors.items() if error is not None}


def _pages(client: Client, name: str, uuid: str, after: int) -> Iterator[dict[str, Any]]:
    """Yield the pages of a host's history after number `after` of the ledger `uuid`; of another ledger, all."""
    until, more, came = time.monotonic() + _WITHIN_S, True, 0
    while more and came < 2 * KEPT and time.monotonic() < until:
        page = asked(client, name, after=after, limit=1000, newest=KEPT)
        if page["ledger"] != uuid:
            uuid = page["ledger"]
            if after:
                after = 0
                continue
        yield page
        came += len(page["tasks"])
        # A host that says without any progress that there is more is not believed.
        more = bool(page.get("more") and page["tasks"]) and int(page.get("next") or 0) > after
        after = int(page.get("next") or 0)


def asked(client: Client, name: str, **query: Any) -> dict[str, Any]:
    """Return an answer of the host's history. Raise WireError, and WireMismatch if its agent has none yet."""
    try:
        return client.history(**query)
    except WireError as error:
        if error.code != "no_such_route":
            raise
        raise WireMismatch(f"{name}: the agent is too old for its history", hint="upgrade: farmhand up") from None
