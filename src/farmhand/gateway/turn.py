"""A turn: one request of a harness, what it carries, and what the policy may know of it.

No prompt text is in `Facts` or `Decision`: the policy cannot depend on it, and the ledger cannot store it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Dialect = Literal["messages", "chat", "responses"]
Residency = Literal["local", "subscription", "metered"]
WorkClass = Literal["planning", "review", "chat", "quick-edit", "agent"]
#: Where a turn's class comes from, the strongest first.
ClassSource = Literal["header", "alias", "path", "derived"]

#: Fields that are kept when the others are released.
_KEPT = frozenset({"stop_sequences", "stream_options"})
#: Classes that a subscription may answer: text in, text out.
TEXT_CLASSES: frozenset[WorkClass] = frozenset({"planning", "review", "chat"})


class Carries(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn contains beside plain text. Each part can be a reason why a backend cannot take it."""

    #: Number of the client's own tools that are offered.
    tools: int = 0
    #: Whether the conversation has a tool call or a tool's result.
    tool_history: bool = False
    images: int = 0
    #: Whether an image is given by URL, or by a file's id: a server would fetch it.
    image_urls: bool = False
    #: Number of documents, files, search results and sounds.
    documents: int = 0
    #: Whether the answer must follow a JSON schema, or be a JSON object.
    schema: bool = False
    #: Types of tools that only the provider knows: it runs them (`web_search_20250305`), or has taught them to its
    #: models (`bash_20250124`).
    hosted_tools: tuple[str, ...] = ()
    stop_sequences: bool = False
    #: Whether the last message is the assistant's: the answer must go on from it.
    prefill: bool = False
    #: Whether the client asks for the provider's `safeguards` (the CLI's auto mode).
    safeguards: bool = False


class Turn(msgspec.Struct, kw_only=True):
    """One request. `fields` are its own, undecoded: a backend of the same dialect sends them on byte for byte."""

    dialect: Dialect
    #: The model that the client asked for: an alias, or any id.
    model: str
    streamed: bool
    fields: dict[str, msgspec.Raw]
    carries: Carries
    #: Estimated input tokens, from the size of what a model will read.
    tokens: int
    #: The limit of the answer that the client asked for; None if it gave none.
    max_tokens: int | None = None
    #: Request headers, names in lower case, without the token.
    headers: dict[str, str] = {}
    #: Its class, once it is decided: a backend has a model for each.
    work_class: WorkClass = "chat"
    #: The request as it came, of which `fields` are views.
    body: bytes = b""
    #: What was decided, once it is: a backend that is paid writes it down before it asks.
    decision: Decision | None = None
    #: What a backend has made of it to decide about it, for the same backend's use when it answers.
    prepared: object = None
    #: The fields as the reader has decoded them, for `values`.
    decoded: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields decoded. The turn keeps no copy, so what a backend makes of them is all that waits."""
        found, self.decoded = self.decoded, None
        return found if found is not None else {name: msgspec.json.decode(raw) for name, raw in self.fields.items()}

    def release(self) -> None:
        """Let go of the request, but for the small fields that its answer's translation looks at."""
        self.fields = {name: raw.copy() for name, raw in self.fields.items() if name in _KEPT}
        self.body = b""
        self.prepared = self.decoded = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy sees of a turn."""

    dialect: Dialect
    work_class: WorkClass
    class_source: ClassSource
    carries: Carries
    tokens: int
    max_tokens: int | None = None
    #: A request of the harness for itself, such as a conversation's title: no tools, a schema, small.
    background: bool = False
    #: A hash of the client's session id; "" if it has none.
    session: str = ""
    #: The residency that the client asked for (`X-Farmhand-Residency`). It narrows the choice and never widens it.
    only: Residency | None = None
    #: The backend that an alias names, such as "local:qwen".
    backend: str | None = None
    #: The most that a metered answer may cost, in pico-dollars; None if unknown or nothing is metered.
    most_pico: int | None = None
    #: `client` and `project`, as the client says: see `farmhand.gateway.labels`.
    labels: dict[str, str] = {}
    #: Whether a session may change its backend at this turn: its last message is the user's own words.
    may_move: bool = True


class Reason(msgspec.Struct, frozen=True):
    """Why a backend does not take a turn: a code for rules and metrics, and words for the person who reads them."""

    code: str
    words: str


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What `farmhand gateway allow` has opened: for which classes, until when (Unix seconds), up to how much."""

    classes: tuple[WorkClass, ...]
    until: float
    limit_pico: int
    #: What of it is spent or reserved.
    spent_pico: int = 0


class LabelBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What turns of a label, such as `project:website`, may cost on a UTC day, and what is spent or reserved of it."""

    name: str
    limit_pico: int
    spent_pico: int


class BackendState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a backend, without asking it. `closed` says why it takes nothing at all now.

    Its code is "shut" if `farmhand gateway allow` opens the backend, "down" if a local server has to be started.
    """

    name: str
    residency: Residency
    closed: Reason | None = None
    #: The tokens that a request and its answer may have together; 0 if unknown.
    context: int = 0
    vision: bool = False
    schema: bool = False
    prefill: bool = False
    #: What it may be given beside that: documents, images by URL, tools that the provider runs, `safeguards`.
    documents: bool = False
    image_urls: bool = False
    hosted_tools: bool = False
    safeguards: bool = False
    #: Whether a metered backend may be paid for a harness's requests for itself, such as titles.
    background: bool = False
    #: Of a metered backend, in pico-dollars: the most for one turn, the most for a day (UTC), and what of that is spent
    #: or reserved. None is no limit, and so no metered answer.
    turn_pico: int | None = None
    day_pico: int | None = None
    spent_pico: int | None = None
    #: The budgets of labels: in a decision those of the turn's own.
    labels: tuple[LabelBudget, ...] = ()
    #: Of a subscription, the part of its fullest window that is used; None if it was not told.
    used: float | None = None
    #: What the operator has opened for a time. A turn that no rule sends there is paid from it; `by_allowance` is then
    #: set, the gate open, and the limits are those of the allowance where these are tighter.
    allowance: Allowance | None = None
    by_allowance: bool = False
    #: The model's own id, for people.
    model: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a backend did not take the turn."""

    backend: str
    reason: Reason


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Which backend answers a turn; `backend` is "" for advice. `id` names it in answers, ledger and `explain`."""

    id: str
    backend: str
    residency: Residency | None
    facts: Facts
    #: The number of the rule that decided, from 1; 0 if the session stayed or an alias named the backend.
    rule: int
    refusals: tuple[Refusal, ...] = ()
    #: Whether a metered turn is paid from what the operator has opened for a time, as no rule sends it there.
    by_allowance: bool = False


class BadRequest(Exception):
    """A request is not what its dialect allows: `path` is the place, such as `messages[3].content`; "" for all."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why


class CannotCarry(Exception):
    """A part of a request that a backend cannot be given: `path` is its place, such as `messages[3].content[1]`."""

    def __init__(self, path: str, what: str, hint: str = "") -> None:
        super().__init__(f"{path} is {what}")
        self.path = path
        self.what = what
        self.hint = hint
