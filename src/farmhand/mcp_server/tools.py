"""The tools: their names, descriptions and input schemas, and their arguments, checked.

The fields of a task are the wire's: name, type, default and rules are those of `farmhand.core.task.Task`. A schema is
an object without `$ref`, `anyOf` and the like, which some clients refuse.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from farmhand.core import rules
from farmhand.core.decoding import json_value
from farmhand.core.errors import UsageError
from farmhand.core.keys import KEY
from farmhand.core.task import TASK_ID, Task

_KINDS: dict[str, Any] = {"array": list, "object": dict, "integer": int, "number": (int, float)}
#: The longest that one call waits. Seconds.
MOST_WAIT_S = 600.0
#: The wire's fields of a task that a session may set, and what is said of them.
_OF_TASK = {
    "prompt": "What to do, with everything that is needed for it: the model sees nothing else.",
    "model": "haiku (default, cheapest), sonnet, opus, or a full model id.",
    "system": "System prompt.",
    "schema": "JSON Schema that the answer must satisfy; the answer is then JSON.",
    "max_tokens": "Longest answer in tokens.",
    "max_usd": "The most that it may cost, in US$.",
}


class _Shared(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    label: Annotated[str, Meta(max_length=200, description="A short name for it, shown in reports.")] | UnsetType = (
        UNSET
    )


class TaskArguments(_Shared, kw_only=True):
    """The arguments of farm_task that are not the wire's."""

    files: (
        Annotated[
            list[str],
            Meta(max_length=100, description="Paths of files that go with the prompt: text, pictures, PDFs."),
        ]
        | UnsetType
    ) = UNSET
    wait_s: (
        Annotated[
            float,
            Meta(ge=0, le=MOST_WAIT_S, description="How long to wait for the answer; after that its id comes back."),
        ]
        | UnsetType
    ) = UNSET


class BatchArguments(_Shared, kw_only=True):
    """The arguments of farm_batch that are not the wire's."""

    tasks: (
        Annotated[list[Any], Meta(max_length=10_000, description="The tasks; each has the fields of farm_task.")]
        | UnsetType
    ) = UNSET
    file: (
        Annotated[
            str,
            Meta(description="Or: path of a .jsonl file of tasks or prompts; with prompt, .jsonl or .csv records."),
        ]
        | UnsetType
    ) = UNSET
    files: (
        Annotated[
            list[str],
            Meta(
                max_length=10_000,
                description="Or, with prompt: text files, directories or patterns; one task for each file.",
            ),
        ]
        | UnsetType
    ) = UNSET
    wait_s: Annotated[float, Meta(ge=0, le=MOST_WAIT_S, description="How long to wait for results; 0.")] | UnsetType = (
        UNSET
    )


class ResultArguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The arguments of farm_result."""

    id: Annotated[str, Meta(max_length=64, description="The id of a task or a batch.")]
    wait_s: Annotated[float, Meta(ge=0, le=MOST_WAIT_S, description="How long to wait for its end.")] | UnsetType = (
        UNSET
    )


class StatusArguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The arguments of farm_status: none."""


class CancelArguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The arguments of farm_cancel."""

    id: Annotated[str, Meta(max_length=64, description="The id of a task or a batch.")]


class CostArguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The arguments of farm_cost."""

    since: (
        Annotated[
            str, Meta(max_length=20, description="From this day on (UTC): 2026-11-01, 2026-11, 30d, 4w. Default: 1d.")
        ]
        | UnsetType
    ) = UNSET


class FarmTool(NamedTuple):
    """A tool: what a session reads of it, the struct of its own arguments, the wire's fields that it takes."""

    about: str
    own: type[msgspec.Struct]
    wire: tuple[str, ...] = ()
    reads_only: bool = True


_OF_BATCH = ("prompt", *(name for name in _OF_TASK if name != "prompt"))
TOOLS = {
    "farm_task": FarmTool(
        "Give one easy, self-contained task to a cheap model on the operator's own farm: a summary, an extraction, a "
        "translation, boilerplate. It does not see this conversation. Returns the answer with model and cost, or after "
        "wait_s an id for farm_result. For several alike use farm_batch.",
        TaskArguments,
        tuple(_OF_TASK),
        reads_only=False,
    ),
    "farm_batch": FarmTool(
        "Run many easy, self-contained tasks on the farm at once: the same prompt over files, or a list of tasks. "
        "Returns an id at once; farm_result has the answers. In prompt, {text}, {path} and {name} stand for each "
        "file's; without {text} the text follows the prompt. model, system, schema and max_tokens are for all tasks, "
        "max_usd is for the whole batch.",
        BatchArguments,
        _OF_BATCH,
        reads_only=False,
    ),
    "farm_result": FarmTool(
        "The answers of a task or a batch by its id, also of an earlier session. Waits up to wait_s for its end. What "
        "was cut off before its end goes on.",
        ResultArguments,
    ),
    "farm_status": FarmTool("What the farm does, the last jobs and their ids, and what may be spent.", StatusArguments),
    "farm_cancel": FarmTool("End a task or a batch. What it has cost until then is paid.", CancelArguments, (), False),
    "farm_cost": FarmTool("What the farm has cost, and what this session and day have.", CostArguments),
}


def input_schema(tool: FarmTool) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, made of the wire's and of its own."""
    own = _properties(tool.own)
    wire = _properties(Task)["properties"]
    properties = {name: _plain(wire[name]) | {"description": _OF_TASK[name]} for name in tool.wire}
    required = [name for name in own["required"] if name != "prompt"]
    if tool.own is TaskArguments:
        required = ["prompt", *required]
    properties |= {name: _plain(value) for name, value in own["properties"].items()}
    if tool.own is BatchArguments:
        properties["tasks"]["items"] = {"type": "object"}
        properties["prompt"] = {"type": "string", "description": "With file or files: the prompt for each."}
        properties["max_usd"]["description"] = "The most that the whole batch may cost, in US$."
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _properties(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    found: dict[str, Any] = {"required": [], "properties": {}} | components[kind.__name__]
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without what some clients refuse: null beside a type, money as a text, a default of null."""
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    found = {**options[0], **{name: value for name, value in schema.items() if name != "anyOf"}}
    if found.get("format") == "decimal" or any(one.get("format") == "decimal" for one in options):
        found = {"type": "number", "exclusiveMinimum": 0}
    if found.get("default", "") in ("", None):
        found.pop("default", None)
    return found


def read(name: str, arguments: dict[str, Any], where: str = "") -> tuple[Any, dict[str, Any]]:
    """Return a tool's own arguments, and the wire's fields among them. Raise UsageError that says what to change."""
    tool = TOOLS[name]
    schemas = input_schema(tool)["properties"]
    given = {field: _meant(value, schemas.get(field, {})) for field, value in arguments.items() if value is not None}
    wire = {field: value for field, value in given.items() if field in tool.wire}
    own = {field: value for field, value in given.items() if field not in tool.wire}
    try:
        return msgspec.convert(own, tool.own), wire
    except msgspec.ValidationError as error:
        known = ", ".join([*tool.wire, *tool.own.__struct_fields__]) or "none"
        raise UsageError(
            f"{where or name}: {error}", hint=f"its arguments: {known}", code="invalid_arguments"
        ) from None


def _meant(value: Any, schema: dict[str, Any]) -> Any:
    """Return an argument as its schema has it where a client has sent it as text: some do that now and then."""
    kind = _KINDS.get(schema.get("type", ""))
    found = value
    if kind is not None and isinstance(value, str):
        with suppress(ValueError, RecursionError):
            found = json_value(value)
    if schema.get("type") == "integer" and isinstance(found, float) and found.is_integer():
        found = int(found)
    return found if kind is not None and isinstance(found, kind) and not isinstance(found, bool) else value


def task_of(fields: dict[str, Any], where: str) -> Task:
    """Return the task that the wire's fields make. Raise UsageError."""
    try:
        task = msgspec.convert(fields, Task)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}", hint=f"its fields: {', '.join(_OF_TASK)}", code="invalid_task") from None
    if (broken := rules.check(task)) is not None:
        raise UsageError(f"{where}: {broken.message}", hint=broken.hint, code=broken.code)
    # Not only the farm's own key, which the child refuses: a session may have come across any.
    if KEY.search(f"{task.prompt}\n{task.system}\n{task.schema}"):
        hint = "take it out: it would go to the model"
        raise UsageError(f"{where}: something like an API key stands in the task", hint=hint, code="key_in_task")
    return task


def job_id(given: str) -> str:
    """Return an id that is one by its form, so that it is no path. Raise UsageError."""
    if not TASK_ID.fullmatch(given):
        raise UsageError(f"{given!r:.80} is no id", hint="farm_status lists them", code="no_such_task")
    return given
