"""The contract between the workstation and the agent containers of Fargate and AWS Batch: keys, documents, exit codes.

A batch is cut into generations, a generation into shards; a shard is the work of one child of an array job. Everything
of a batch is below `ENV/batches/BATCH/` in the bucket:

    in/G/manifest.json          ShardManifest, written last
    in/G/NNNNN.jsonl            the shard's tasks, one a line, as on the wire (see PROMPT_KEY)
    in/G/prompts/ID             a prompt of more than MAX_INLINE_PROMPT bytes, UTF-8
    out/G/NNNNN/A-PPPP.jsonl    part P of attempt A: results as on the wire, one a line
    ledger/G/NNNNN/A-PPPP.jsonl a LedgerPart, then its charges, then its finished tasks, as `/v1/charges` and
                                `/v1/finished` have them

and of a single task, whose id takes the place of BATCH:

    in/order.json  in/source.bundle          SingleOrder; the bundle of a repository task
    in/run.json  in/runs/N.json              of the workstation: the try begun last; what try N came to, once it ended
    out/result.json  out/changes.patch …     SingleResult; what the task leaves (core.task.TASK_OUTPUTS)

and of a look at the containers themselves, which runs no task:

    in/verify.json                           VerifyOrder
    out/verify.json  out/stopped.json        VerifyReport; written when SIGTERM has come

`core.bucket_keys` makes these names. Objects below out/ and ledger/ are made once and never replaced. Where an id has
several results, that of the lowest (generation, attempt, part, line) counts; the others cost money all the same. All
money is in pico-dollars (core.money).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from farmhand.core.errors import FarmhandError, NotConfigured
from farmhand.core.task_access import CloneOrder
from farmhand.core.typed import ready

#: The version of these documents; a container refuses another with EXIT_CONFIG.
VERSION = 1

# The environment of the agent container.
ORDER = "FARMHAND_ORDER"
"""The bucket's key of the order: `…/in/G/` for a shard, `…/in/order.json` for a single task, `…/in/verify.json`."""
CREDENTIAL = "FARMHAND_CREDENTIAL"
"""The credential, by `secrets` of the container's definition; taken out of the environment first thing."""
BUCKET = "FARMHAND_BUCKET"
TABLE = "FARMHAND_TABLE"
ENVIRONMENT = "FARMHAND_ENVIRONMENT"
SHARD = "FARMHAND_SHARD"
"""The number of the shard in a job that is no array, or the number of the array's first shard (default 0)."""
UPSTREAM = "FARMHAND_UPSTREAM_URL"
"""Where the key is sent; by default the API. It is in the definition or its overrides, never in the bucket."""
STOP = "FARMHAND_STOP_S"
"""Seconds from SIGTERM to SIGKILL, if the definition's stopTimeout is not 120."""
CREDENTIAL_KIND = "FARMHAND_CREDENTIAL_KIND"
"""`key` (default), `setup-token`, `login`; `none` stands for a federation; see task_access."""
ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
ATTEMPT = "AWS_BATCH_JOB_ATTEMPT"

# Exit codes of the agent container. Batch retries 75 and nothing else that a container returns.
EXIT_DONE = 0
"""Every task of the order has a result in the bucket."""
EXIT_BUG = 70
EXIT_LEFT = 75
"""Interrupted, or out of a budget that others still hold: work is left, and another attempt may do it."""
EXIT_STOPPED = 76
"""The batch is stopping or cancelled: work is left, and no other attempt shall do it."""
EXIT_REFUSED = 77
"""The API refuses the credential. The batch is stopping."""
EXIT_CONFIG = 78
EXIT_KILLED = 137
"""SIGKILL: the agent container was killed, or was out of memory."""


class ContainerEnd(NamedTuple):
    """What an exit code of the agent container means: in words, and as the error of the command that waited for it."""

    words: str
    error: type[FarmhandError]


ENDS = {
    EXIT_BUG: ContainerEnd("a fault of Farmhand", FarmhandError),
    EXIT_LEFT: ContainerEnd("stopped with work left", FarmhandError),
    EXIT_STOPPED: ContainerEnd("the batch was stopped", FarmhandError),
    EXIT_REFUSED: ContainerEnd("the API refuses the credential", NotConfigured),
    EXIT_CONFIG: ContainerEnd("it is not configured right", NotConfigured),
    EXIT_KILLED: ContainerEnd("the agent container was killed", FarmhandError),
}


def container_error(code: int | None = None, words: str = "") -> type[FarmhandError]:
    """Return the class of error, and so the command's exit code, for a container's exit code or the words for it."""
    return next((end.error for known, end in ENDS.items() if known == code or end.words == words), FarmhandError)


#: A longer prompt is an object of its own. The line has its key as PROMPT_KEY, and no `prompt`.
MAX_INLINE_PROMPT = 256 * 1024
PROMPT_KEY = "prompt_key"
#: A part has up to so many results, or those of so many seconds.
PART_RESULTS = 100
PART_S = 30.0
#: Seconds between two looks at the batch's state.
POLL_S = 10.0
#: Seconds from SIGTERM to SIGKILL. Source: Fargate's stopTimeout, 120 at most. A container ends within 11/12 of them;
#: running tasks have the first half.
STOP_S = 120.0

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Pico = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
#: Unix seconds, until the year 5138.
Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
BatchState = Literal["running", "stopping", "cancelled"]


class AgentOptions(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Settings of the daemon in the container. `prices` is the text of the operator's price file, or ""."""

    slots_api: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    slots_cli: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    prices: Annotated[str, msgspec.Meta(max_length=1024 * 1024)] = ""


class PlaceInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The size of the container that runs an order, for its price. `vcpu` is in thousandths.

    `public`: it has a public address, which costs too.
    """

    name: str = ""
    vcpu_milli: Count = 0
    memory_mb: Count = 0
    spot: bool = False
    public: bool = False


class ShardManifest(msgspec.Struct, kw_only=True):
    """What every child of a generation reads first.

    `digest` is the SHA-256 of the batch's input, in hex. `shards` and `tasks` count the generation. `model` and
    `engine` are those of most tasks, and are shown only. `concurrency` limits the tasks at once of the whole batch:
    each child has its share (share_of), and there are at most so many children. `jitter_s` is the most that a child
    waits before it begins, by its number.
    `patience_s` is how long a child without room in the budget waits for what others give back.
    `farmhand` is the workstation's version. The budget is in the table's item, because it can be raised.
    """

    batch: str
    generation: Count
    environment: str
    digest: str
    shards: Annotated[int, msgspec.Meta(ge=1)]
    tasks: Count
    farmhand: str
    model: str = ""
    engine: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    jitter_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 30.0
    patience_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 30.0
    agent: AgentOptions = msgspec.field(default_factory=AgentOptions)
    place: PlaceInfo = msgspec.field(default_factory=PlaceInfo)
    version: int = VERSION


def share_of(manifest: ShardManifest, number: int) -> int | None:
    """Return how many tasks shard `number` may run at once, None for no limit. All shares make up the limit."""
    if manifest.concurrency is None:
        return None
    each, rest = divmod(manifest.concurrency, manifest.shards)
    return max(1, each + (number < rest))


class SingleOrder(msgspec.Struct, kw_only=True):
    """One task. With `task.repo` its bundle is at BatchKeys.bundle, of `bundle_bytes` and with that SHA-256 in hex.

    With `clone` there is no bundle: the container fetches the repository, puts its commit into `task.repo`, and judges
    the patch. `live`: the container writes the task's text into its log as it comes, as lines of TaskText.
    """

    environment: str
    task: dict[str, Any]
    farmhand: str
    bundle_bytes: Count = 0
    bundle_sha256: str = ""
    clone: CloneOrder | None = None
    live: bool = False
    agent: AgentOptions = msgspec.field(default_factory=AgentOptions)
    place: PlaceInfo = msgspec.field(default_factory=PlaceInfo)
    version: int = VERSION


class TaskText(msgspec.Struct, kw_only=True, rename={"text": "farmhand.text"}):
    """A line of the agent container's log: a part of the task's text, with its own line ends."""

    text: str


class StoredFile(msgspec.Struct, kw_only=True):
    """A file in the bucket. `sha256` is in hex."""

    key: str
    bytes: Count
    sha256: str


class SingleResult(msgspec.Struct, kw_only=True):
    """The outcome of a single order: the result as on the wire, its files by name, when it ran (Unix seconds)."""

    result: dict[str, Any]
    files: dict[str, StoredFile]
    place: PlaceInfo
    started_at: Moment
    stopped_at: Moment
    version: int = VERSION


class VerifyOrder(msgspec.Struct, kw_only=True):
    """What a look at the containers needs to know. It runs no task and makes no call that costs tokens.

    `network` is the stack's NetworkMode, `ipv4` whether a private one has a gateway for it, `secret` what the task role
    must not be able to read. After its report the container waits up to `hold_s` for SIGTERM. With `again` it looks at
    nothing: its first attempt ends with EXIT_LEFT, the second with EXIT_DONE.
    """

    environment: str
    farmhand: str
    network: str = "private"
    ipv4: bool = False
    secret: str = ""
    hold_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0
    again: bool = False
    version: int = VERSION


class VerifyRow(msgspec.Struct, kw_only=True):
    """One thing that was looked at, and what was seen of it."""

    name: Annotated[str, msgspec.Meta(max_length=100)]
    verdict: Literal["passed", "failed", "not known"]
    seen: Annotated[str, msgspec.Meta(max_length=2000)]


class VerifyReport(msgspec.Struct, kw_only=True):
    """What the agent container has seen."""

    rows: list[VerifyRow]
    version: int = VERSION


class LedgerPart(msgspec.Struct, kw_only=True):
    """The first line of a part of a ledger: whose it is, and how many lines of each kind follow."""

    ledger: str
    charges: Count
    finished: Count
    version: int = VERSION


def read_ledger(body: bytes) -> tuple[LedgerPart, list[bytes], list[bytes]]:
    """Return the head, the charges and the finished tasks of a part of a ledger. Raise ValueError."""
    lines = body.splitlines()
    head = msgspec.json.decode(lines[0] if lines else b"", type=ready(LedgerPart))
    if len(lines) != 1 + head.charges + head.finished:
        raise ValueError(f"{len(lines) - 1} rows, not {head.charges} + {head.finished}")
    return head, lines[1 : 1 + head.charges], lines[1 + head.charges :]


# The table's items. Their key is the attribute `pk`.
PK = "pk"


def batch_pk(batch: str) -> str:
    """Return the key of a batch's item."""
    return f"batch#{batch}"


def credential_pk(environment: str, kind: str) -> str:
    """Return the key of a credential's item. A container sets `refused` there: to the time, in Unix seconds."""
    return f"credential#{environment}#{kind}"


#: An attribute of a batch's item for each lease that is held: its value is the lease's pico-dollars.
LEASE_PREFIX = "lease:"


class LeaseName(NamedTuple):
    """Who holds a lease."""

    generation: int
    shard: int
    attempt: int

    @property
    def attribute(self) -> str:
        """Return the attribute of the lease."""
        return f"{LEASE_PREFIX}{self.generation}.{self.shard:05d}.{self.attempt}"


class BatchItem(msgspec.Struct, kw_only=True):
    """The item of a batch; an absent attribute has its default.

    `leased` is what all children hold now, `spent` what ended leases have cost, `uncertain` what they may have cost
    beyond: answers that never arrived, and the rest of leases whose holder was killed. `taken` is their sum, which
    every update changes with them; it never exceeds `limit`, which only the workstation changes. `generation` is the
    latest. `reason` says why the state is not `running`: `budget`, `credential`, `cancel`, or the code of an error;
    `detail` is a line for people.
    """

    state: BatchState = "running"
    limit: Pico | None = None
    taken: Pico = 0
    leased: Pico = 0
    spent: Pico = 0
    uncertain: Pico = 0
    generation: Count = 0
    reason: str = ""
    detail: str = ""
    leases: dict[LeaseName, Pico] = {}

    @property
    def left(self) -> int | None:
        """Return what can still be leased, None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.taken)


def read_item(attributes: dict[str, dict[str, Any]]) -> BatchItem:
    """Return the item of DynamoDB's own form, `{"state": {"S": "running"}, "limit": {"N": "5"}}`. Raise ValueError."""
    plain: dict[str, Any] = {name: int(Decimal(v["N"])) if "N" in v else v.get("S") for name, v in attributes.items()}
    leases = {}
    for name in [name for name in plain if name.startswith(LEASE_PREFIX)]:
        generation, shard, attempt = map(int, name.removeprefix(LEASE_PREFIX).split("."))
        leases[LeaseName(generation, shard, attempt)] = plain.pop(name)
    item = msgspec.convert({name: value for name, value in plain.items() if value is not None}, BatchItem)
    item.leases = leases
    return item


def write_item(batch: str, item: BatchItem) -> dict[str, dict[str, Any]]:
    """Return a new item in DynamoDB's own form, without leases."""
    values = {name: getattr(item, name) for name in item.__struct_fields__ if name != "leases"}
    plain = {PK: batch_pk(batch), **{name: value for name, value in values.items() if value is not None}}
    return {name: {"S": value} if isinstance(value, str) else {"N": str(value)} for name, value in plain.items()}
