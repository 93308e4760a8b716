"""The loopback Messages API: a strict stand-in for the provider's, for tests and for `make demo`.

It listens on loopback or a Unix socket, refuses what the real API refuses with the real error bodies, answers
deterministically, can be told to fail (`faults`), to answer in a script (`rules`), and keeps a log of what it received.

Endpoints: /v1/messages (plain and streaming), /v1/messages/count_tokens, /v1/messages/batches (create, retrieve, list,
results, cancel, delete), /v1/models, /v1/oauth/token, the Admin API's reports
(/v1/organizations/usage_report/messages and /v1/organizations/cost_report), HEAD /. A test in the same process uses
`MessagesApi`; any other uses the control endpoints below /_control/, which take and give the same structures as JSON:

    keys            GET, PUT                the accepted keys
    faults          GET, POST, DELETE       `Fault`: what goes wrong with whole calls
    rules           GET, POST, DELETE       `Rule`: scripted answers
    latency         PUT                     `{"ms": 50, "event_ms": 0, "per_s": 0}`: `Latency`
    limits          GET, PUT                `Limits`: token buckets and concurrency that refuse; null (default): none
    windows         PUT                     `Windows` of the plan behind every login: how much is used; null: not told
    batches         GET                     every batch, and how many of its requests are processed
    batches         POST                    `Advance`: process a fraction, finish now or later, expire, archive
    batches/ID      GET                     one batch, and what became of each request, also before its end
    batches/plan    GET, PUT                `Plan` of the batches to come: how long they take, when they expire, …
    batches/faults  GET, POST, DELETE       `BatchFault`: single requests that are errored or expire
    books           POST                    `Posting`: what another of the organization was billed, for the reports
    admin_keys      PUT                     the accepted Admin keys
    federation      PUT                     `Federation`: the rule of /v1/oauth/token
    log             GET ?after=N, DELETE    what was received; --log appends it to a file, with each request of a batch
    reset           POST                    forget all of that

Without a plan a batch is processed at once, in the background: `in_progress` when it is created, `ended` soon after.
"""

from tests.support.messages_api.batch import Plan
from tests.support.messages_api.batches import Advance
from tests.support.messages_api.books import Posting
from tests.support.messages_api.faults import BatchFault, Fault
from tests.support.messages_api.limits import Limits
from tests.support.messages_api.oauth import Federation
from tests.support.messages_api.rules import Rule, Step
from tests.support.messages_api.server import MessagesApi
from tests.support.messages_api.state import DEFAULT_ADMIN_KEY, DEFAULT_KEY
from tests.support.messages_api.verbatim import Verbatim
from tests.support.messages_api.windows import Windows

__all__ = [
    "DEFAULT_ADMIN_KEY",
    "DEFAULT_KEY",
    "Advance",
    "BatchFault",
    "Fault",
    "Federation",
    "Limits",
    "MessagesApi",
    "Plan",
    "Posting",
    "Rule",
    "Step",
    "Verbatim",
    "Windows",
]
