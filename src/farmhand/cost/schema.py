"""The tables of the workstation's copy of all hosts' ledgers, and the sums that are kept beside the rows.

`charge` and `done` hold what was merged, once per ledger and number. `spend`, `spend_label`, `work`, `work_label` are
sums over them by day (UTC, days since 1970) and all that figures are grouped by; the merge adds to them what is new, in
its own transaction, so that no figure needs a walk over the rows. Texts are numbers of `word`.

`band` says between which prompt lengths a request was (see `Store.breaks`): within a band every price of every model
holds for all requests alike, so sums can be priced as exactly as single requests.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

_SUMS = """
    requests INTEGER NOT NULL,
    fresh INTEGER NOT NULL,
    output INTEGER NOT NULL,
    written INTEGER NOT NULL,
    written_1h INTEGER NOT NULL,
    read INTEGER NOT NULL,
    pico INTEGER NOT NULL
"""
_COUNTS = """
    tasks INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    uncertain INTEGER NOT NULL
"""
#: The keys of each kind of sums, in the order of its primary key.
SPEND = ("day", "ledger", "model", "engine", "economy", "batch", "work_class", "version", "band", "priced")
SPEND_LABEL = ("day", "ledger", "labels", "priced")
WORK = ("day", "ledger", "model", "engine", "batch", "work_class", "state", "error")
WORK_LABEL = ("day", "ledger", "labels", "state")
SUMS = ("requests", "fresh", "output", "written", "written_1h", "read", "pico")
COUNTS = ("tasks", "attempts", "retries", "uncertain")


def _sums(name: str, keys: tuple[str, ...], values: str) -> str:
    columns = "".join(f"{key} INTEGER NOT NULL, " for key in keys)
    return f"CREATE TABLE {name} ({columns}{values}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID;"


TABLES = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    merged_at REAL,
    charge_no INTEGER NOT NULL DEFAULT 0,
    done_no INTEGER NOT NULL DEFAULT 0,
    budget TEXT
);
CREATE TABLE charge (
    ledger INTEGER NOT NULL REFERENCES ledger (id),
    no INTEGER NOT NULL,
    at REAL NOT NULL,
    model INTEGER NOT NULL,
    engine INTEGER NOT NULL,
    economy INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    work_class INTEGER NOT NULL,
    labels INTEGER NOT NULL,
    version INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    fresh INTEGER NOT NULL,
    output INTEGER NOT NULL,
    written INTEGER NOT NULL,
    written_1h INTEGER NOT NULL,
    read INTEGER NOT NULL,
    pico INTEGER,
    PRIMARY KEY (ledger, no)
) WITHOUT ROWID;
CREATE TABLE done (
    ledger INTEGER NOT NULL REFERENCES ledger (id),
    no INTEGER NOT NULL,
    id TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL NOT NULL,
    state INTEGER NOT NULL,
    error INTEGER NOT NULL,
    model INTEGER NOT NULL,
    engine INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    work_class INTEGER NOT NULL,
    labels INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    uncertain INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    fresh INTEGER NOT NULL,
    output INTEGER NOT NULL,
    written INTEGER NOT NULL,
    written_1h INTEGER NOT NULL,
    read INTEGER NOT NULL,
    pico INTEGER,
    PRIMARY KEY (ledger, no)
) WITHOUT ROWID;
{_sums("spend", SPEND, _SUMS)}
{_sums("spend_label", SPEND_LABEL, _SUMS)}
{_sums("work", WORK, _COUNTS)}
{_sums("work_label", WORK_LABEL, _COUNTS)}
CREATE TABLE session_file (
    path TEXT PRIMARY KEY,
    inode INTEGER NOT NULL,
    offset INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE session_message (
    key TEXT PRIMARY KEY,
    at REAL NOT NULL,
    model TEXT NOT NULL,
    fresh INTEGER NOT NULL,
    output INTEGER NOT NULL,
    written INTEGER NOT NULL,
    written_1h INTEGER NOT NULL,
    read INTEGER NOT NULL
) WITHOUT ROWID;
"""

#: What came later, and an older farmhand does without. `bound`: the most that the uncertain requests of a finished task
#: may have cost; nothing is known of those that were merged before this table was there.
LATER = """
CREATE TABLE IF NOT EXISTS session_uncounted (
    path TEXT NOT NULL,
    offset INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (path, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bound (
    ledger INTEGER NOT NULL REFERENCES ledger (id),
    no INTEGER NOT NULL,
    day INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    pico INTEGER,
    PRIMARY KEY (ledger, no)
) WITHOUT ROWID;
"""

_CHARGE_VALUES = (
    "sum(requests), sum(fresh), sum(output), sum(written), sum(written_1h), sum(read), coalesce(sum(pico), 0)"
)
_DONE_VALUES = "count(*), sum(attempts), sum(retries), sum(uncertain)"


def _add(table: str, keys: tuple[str, ...], values: tuple[str, ...], select: str) -> str:
    """The statement that adds `select`, grouped by the keys, to what `table` has."""
    more = ", ".join(f"{value} = {value} + excluded.{value}" for value in values)
    columns = ", ".join(keys + values)
    group = ", ".join(str(number) for number in range(1, len(keys) + 1))
    # "WHERE true": SQLite would else take ON CONFLICT for the join's.
    return (
        f"INSERT INTO {table} ({columns}) {select} WHERE true GROUP BY {group}"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {more}"
    )


def add_charges(source: str, breaks: tuple[int, ...]) -> tuple[str, str]:
    """The statements that add the charges of the table `source` to the sums."""
    day, priced = "CAST(at / 86400 AS INTEGER)", "pico IS NOT NULL"
    band = " + ".join(f"(fresh + written + read > {edge:d})" for edge in breaks) or "0"
    plain = f"SELECT {day}, ledger, model, engine, economy, batch, work_class, version, {band}, {priced}"
    label = f"SELECT {day}, ledger, labels, {priced}"
    return (
        _add("spend", SPEND, SUMS, f"{plain}, {_CHARGE_VALUES} FROM {source}"),
        _add("spend_label", SPEND_LABEL, SUMS, f"{label}, {_CHARGE_VALUES} FROM {source}"),
    )


def add_done(source: str) -> tuple[str, str]:
    """The statements that add the finished tasks of the table `source` to the sums."""
    day = "CAST(finished / 86400 AS INTEGER)"
    plain = f"SELECT {day}, ledger, model, engine, batch, work_class, state, error, {_DONE_VALUES} FROM {source}"  # noqa: S608
    label = f"SELECT {day}, ledger, labels, state, {_DONE_VALUES} FROM {source}"  # noqa: S608
    return _add("work", WORK, COUNTS, plain), _add("work_label", WORK_LABEL, COUNTS, label)
