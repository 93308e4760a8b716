"""All names of spans and attributes. Nothing else is ever put into a span: no prompt, answer, key or name of a file.

The `gen_ai.*` names are those of OpenTelemetry's GenAI semantic conventions, in the state of
opentelemetry-semantic-conventions 0.66b2 (`_incubating/attributes/gen_ai_attributes.py`). That package marks them as
moved to another repository (semantic-conventions-genai), and so as deprecated there: hence a table of our own, which a
test compares with it. `farmhand.*` are ours. docs/telemetry.md prints this table.
"""

from __future__ import annotations

TASK = "farmhand.task"
BATCH = "farmhand.batch"
#: A request's span is `chat` and the model.
CHAT = "chat"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
FINISH = "gen_ai.response.finish_reasons"
INPUT = "gen_ai.usage.input_tokens"
OUTPUT = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
ERROR = "error.type"
#: The value of `error.type` for what has no known name. Source: the same conventions.
OTHER = "_OTHER"

COST = "farmhand.cost_usd"
PLACE = "farmhand.place"
IN_BATCH = "farmhand.batch"
TASK_ID = "farmhand.task"
ATTEMPT = "farmhand.attempt"
RETRIES = "farmhand.retries"
ENGINE = "farmhand.engine"
TASKS = "farmhand.tasks"
FAILED = "farmhand.failed"

#: Attribute → what it is, as the documentation says it.
ABOUT = {
    OPERATION: "always `chat`",
    PROVIDER: "always `anthropic`",
    MODEL: "the full id of the model",
    MAX_TOKENS: "the most tokens that the answer may have",
    FINISH: "why the model stopped, such as `end_turn`; a list of one",
    INPUT: "all tokens that were sent, cached ones included",
    OUTPUT: "the tokens of the answer",
    CACHE_READ: "those of the input that came from the prompt cache",
    CACHE_CREATION: "those of the input that were written to it",
    ERROR: "the code of the error, as in `--json`; missing where there is none",
    COST: "US$; missing while it is not known",
    PLACE: "`farm`, `gateway`, `docker`, `fargate` or `aws-batch`",
    IN_BATCH: "the batch, as a digest of its name",
    TASK_ID: "the task's id; one that you chose as a digest",
    ATTEMPT: "which attempt of the task, from 1",
    RETRIES: "how often the meter sent the request again",
    ENGINE: "`api`, `cli` or `economy`",
    TASKS: "tasks that a batch ended in this run",
    FAILED: "those of them that failed",
}
