"""What becomes of each field and each content block on its way to a local server: the one table, and its use.

A row is in exactly one of three columns. `carried`: the server gets it. `advisory`: it changes no answer that a local
model could give, so it is left out, and its name is in `x-farmhand-omitted`. `refused`: leaving it out would lose
something that the client asked for, so the request ends with the JSON path. What no row knows is refused too, but in
the tables that are open: there a local server has fields of its own, and gets them as they are.

Sources of the names: the types of the provider's Messages API and of Chat Completions and Responses, as the packages
`anthropic` 2.12 and `openai` 3.57 have them. tests/unit/gateway/test_complete.py compares them with what is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from farmhand.gateway.turn import CannotCarry

#: The end of a type with a version: `web_search_20250305`, `web_search_preview_2025_03_11`.
_VERSION = re.compile(r"_20\d\d_?\d\d_?\d\d$")


#: Fields that ask for something by being there: `{}` is a search at its defaults.
_ASKED_BY_NAME = frozenset({"web_search_options"})


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a local server can take, and what the operator wants of it."""

    #: The server's own id of the model.
    model: str
    vision: bool = False
    schema: bool = False
    prefill: bool = False
    #: What becomes of a system message amid the conversation: part of the user's turn, or a system message.
    mid_system: Literal["merge", "system"] = "merge"
    #: Whether tools that only the provider knows are left out of the offer instead of refused.
    omit_hosted_tools: bool = False
    #: Merged into the body. It may not set `model`, `messages`, `stream` and `tools`.
    extra_body: Mapping[str, Any] = {}


class ChatRequest(msgspec.Struct, frozen=True):
    """A request for a local server: its body, and the names of what was left out because it only advises."""

    body: bytes
    omitted: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """The rows of one object's fields, or of one list's types. `refused` has for each what it is, and what to do."""

    carried: frozenset[str]
    advisory: frozenset[str] = frozenset()
    refused: Mapping[str, tuple[str, str]] = {}
    #: Values of a refused row that ask for nothing.
    harmless: Mapping[str, tuple[Any, ...]] = {}
    #: Whether what no row knows is carried.
    open: bool = False
    #: What something is that no row knows.
    unknown: str = "a field that this gateway does not know"


def table(
    carried: str,
    advisory: str = "",
    refused: Mapping[str, str | tuple[str, str]] | None = None,
    **more: Any,
) -> Table:
    """Return a table of names that are separated by spaces."""
    rows = {
        name: (row, "") if isinstance(row, str) else row
        for names, row in (refused or {}).items()
        for name in names.split()
    }
    return Table(frozenset(carried.split()), frozenset(advisory.split()), rows, **more)


_AS_TEXT = "send it as text"
_FILE = ("a document", _AS_TEXT)
_HOSTED = ("a tool that runs at the provider", "switch it off in the client")
_TAUGHT = ("a tool that only the provider's models know", "switch it off in the client")
_STATE = ("state kept at the provider", "send the whole conversation")
_MADE_THERE = ("the result of a tool at the provider", "start a new conversation")
_CITED = ("a citation", "ask without citations")
_CODEX_WEB = (_HOSTED[0], 'codex: web_search = "disabled"')
_CODEX_SPACE = ("a group of tools", "codex: [agents] enabled = false, and no MCP server")
_FREE_FORM = ("a tool with free-form input", "offer it as a function")
_CALLER = {"caller": _MADE_THERE, "toolset_name": _TAUGHT}
_DIRECT = {"caller": ({"type": "direct"},)}
_ASYNC = ("an asynchronous call", "")
_CALLERS = {"allowed_callers": ("a tool for other tools", "")}
_ONLY_DIRECT = {"allowed_callers": (["direct"],)}
_LIMIT = "a part of the request that only the provider can run"

TABLES: Mapping[str, Table] = {
    # ------------------------------------------------------------------------------------------------- Messages
    "messages.request": table(
        "max_tokens messages model output_config stop_sequences stream system temperature tool_choice tools top_k "
        "top_p",
        "betas billing_policy cache_control context_management diagnostics fallback_credit_token fallbacks "
        "inference_geo metadata service_tier speed thinking user_profile_id workspace_id",
        {
            "compaction": ("a request to compact the conversation", "let the client compact it"),
            "container": (_LIMIT, ""),
            "mcp_servers": _HOSTED,
            "safeguards": ("asked for, and this backend does not run them", ""),
            "thread": _STATE,
        },
    ),
    "messages.message": table("role content", "cache_control"),
    "messages.system_message": table("role content clear_at", "output_config cache_control"),
    "messages.blocks": table(
        "image text tool_addition tool_removal tool_result tool_use",
        "fallback redacted_thinking thinking",
        {
            "document": _FILE,
            "search_result": ("a search result", _AS_TEXT),
            "container_upload": ("a file", _AS_TEXT),
            "compaction": ("a compacted conversation that only the provider can read", "start a new conversation"),
            "mcp_tool_listing": _HOSTED,
            "advisor_tool_result bash_code_execution_tool_result code_execution_tool_result mcp_tool_result "
            "mcp_tool_use server_tool_use text_editor_code_execution_tool_result tool_search_tool_result "
            "web_fetch_tool_result web_search_tool_result": _MADE_THERE,
        },
        unknown="a block that this gateway does not know",
    ),
    "messages.result_blocks": table(
        "image text tool_reference",
        refused={
            "browser_state": ("the state of a browser", _AS_TEXT),
            "document": _FILE,
            "search_result": ("a search result", _AS_TEXT),
        },
        unknown="a block that this gateway does not know",
    ),
    "messages.text": table("type text", "cache_control", {"citations": _CITED}),
    "messages.image": table(
        "type source",
        "cache_control",
        {"transformations": ("a condition on the image's size", "")},
        harmless={"transformations": ({"oversized_image": "downsize"},)},
    ),
    "messages.sources": table(
        "base64",
        refused={"url": ("an image by URL", "send its bytes"), "file": ("an image by a file's id", "send its bytes")},
        unknown="a source that this gateway does not know",
    ),
    "messages.source": table("type media_type data"),
    "messages.tool_use": table("type id name input", "cache_control", _CALLER, harmless=_DIRECT),
    "messages.tool_result": table("type tool_use_id content is_error", "cache_control", {"toolset_name": _TAUGHT}),
    "messages.tool_reference": table("type tool_name", "cache_control"),
    "messages.tool_change": table("type tool", "cache_control"),
    "messages.changed": table(
        "tool_reference",
        refused={
            "mcp_tool_reference mcp_toolset_reference": _HOSTED,
            "tool_definition": ("the definition of a tool amid the conversation", "offer it in tools"),
        },
        unknown="a change of tools that this gateway does not know",
    ),
    "messages.changed_tool": table("type name"),
    "messages.tools": table(
        "custom",
        refused={
            "advisor code_execution mcp_toolset tool_search_tool_bm25 tool_search_tool_regex web_fetch web_search": (
                _HOSTED
            ),
            "bash browser_toolset computer computer_toolset memory text_editor": _TAUGHT,
        },
        unknown="a tool of a type that this gateway does not know",
    ),
    "messages.tool": table(
        "type name description input_schema strict input_examples defer_loading",
        "cache_control eager_input_streaming",
        _CALLERS,
        harmless=_ONLY_DIRECT,
    ),
    "messages.tool_choices": table("auto any none tool", unknown="a choice that this gateway does not know"),
    "messages.tool_choice": table("type name disable_parallel_tool_use"),
    "messages.output_config": table("format", "effort task_budget"),
    "messages.formats": table("json_schema", unknown="a format that this gateway does not know"),
    "messages.format": table("type schema"),
    # ------------------------------------------------------------------------------------------ Chat Completions
    "chat.request": table(
        "frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages model parallel_tool_calls "
        "presence_penalty reasoning_effort response_format seed stop stream stream_options temperature tool_choice "
        "tools top_logprobs top_p",
        "metadata prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier service_tier store "
        "user verbosity",
        {
            "audio": ("a request for sound", ""),
            "function_call functions": ("an old form of tools", "use tools and tool_choice"),
            "modalities": ("a request for more than text", ""),
            "moderation": (_LIMIT, ""),
            "n": ("a request for several answers", "ask several times"),
            "prediction": ("a predicted answer", ""),
            "web_search_options": _HOSTED,
        },
        harmless={"n": (1,), "modalities": (["text"],)},
        open=True,
    ),
    "chat.roles": table(
        "assistant developer system tool user",
        refused={"function": ("the result of an old form of tools", "use the role tool")},
        unknown="a role that this gateway does not know",
    ),
    "chat.message": table(
        "role content name tool_calls tool_call_id refusal",
        refused={
            "audio": ("a sound", _AS_TEXT),
            "function_call": ("a call in an old form of tools", "use tool_calls"),
        },
        open=True,
    ),
    "chat.parts": table(
        "text image_url refusal",
        refused={"file": _FILE, "input_audio": ("a sound", _AS_TEXT)},
        unknown="a part that this gateway does not know",
    ),
    "chat.tools": table(
        "function", refused={"custom": _FREE_FORM}, unknown="a tool of a type that this gateway does not know"
    ),
    "chat.calls": table(
        "function",
        refused={"custom": ("a call with free-form input", "")},
        unknown="a call that this gateway does not know",
    ),
    "chat.tool_choices": table(
        "auto none required function",
        refused={"allowed_tools": ("a choice among some tools", "offer only these"), "custom": _FREE_FORM},
        unknown="a choice that this gateway does not know",
    ),
    "chat.formats": table("text json_schema json_object", unknown="a format that this gateway does not know"),
    # ------------------------------------------------------------------------------------------------- Responses
    "responses.request": table(
        "input instructions max_output_tokens model parallel_tool_calls stream temperature text tool_choice tools "
        "top_p",
        "access_programs client_metadata context_management include max_tool_calls metadata prompt_cache_key "
        "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier stream_options "
        "truncation user",
        {
            "background": ("an answer in the background", "stream it"),
            "background_options": ("an answer in the background", "stream it"),
            "conversation previous_response_id": _STATE,
            "image": ("a request for an image", ""),
            "moderation": (_LIMIT, ""),
            "prompt": ("a prompt kept at the provider", "send its text"),
            "store": ("a request to keep the answer, and this gateway keeps none", "send store: false"),
            "top_logprobs": ("a request for probabilities", ""),
        },
        harmless={"top_logprobs": (0,)},
    ),
    "responses.items": table(
        "function_call function_call_output message",
        "reasoning",
        {
            "additional_tools": ("an offer of tools amid the conversation", "offer them in tools"),
            "compaction compaction_trigger": (
                "a compacted conversation that only the provider can read",
                "start a new conversation",
            ),
            "configuration_update": ("a change of settings amid the conversation", ""),
            "item_reference": _STATE,
            "custom_tool_call custom_tool_call_output": ("a call with free-form input", ""),
            "apply_patch_call apply_patch_call_output code_interpreter_call computer_call computer_call_output "
            "file_search_call image_generation_call local_shell_call local_shell_call_output mcp_approval_request "
            "mcp_approval_response mcp_call mcp_list_tools program program_output shell_call shell_call_output "
            "tool_search_call tool_search_output web_search_call": _MADE_THERE,
        },
        unknown="an item that this gateway does not know",
    ),
    "responses.message": table("type role content", "id phase status"),
    "responses.function_call": table(
        "type call_id name arguments",
        "id status",
        {"async": _ASYNC, "caller": _MADE_THERE, "namespace": _CODEX_SPACE},
        harmless=_DIRECT,
    ),
    "responses.function_call_output": table(
        "type call_id output name",
        "id status",
        {"caller": _MADE_THERE, "namespace": _CODEX_SPACE},
        harmless=_DIRECT,
    ),
    "responses.parts": table(
        "input_text input_image output_text refusal",
        refused={"input_file": _FILE, "input_audio": ("a sound", _AS_TEXT)},
        unknown="a part that this gateway does not know",
    ),
    "responses.input_text": table("type text", "prompt_cache_breakpoint"),
    "responses.output_text": table("type text", "logprobs", {"annotations": _CITED}),
    "responses.refusal": table("type refusal"),
    "responses.input_image": table(
        "type image_url detail",
        "prompt_cache_breakpoint",
        {"file_id": ("an image by a file's id", "send its bytes")},
    ),
    "responses.tools": table(
        "function",
        refused={
            "web_search web_search_preview": _CODEX_WEB,
            "code_interpreter file_search image_generation mcp programmatic_tool_calling tool_search": _HOSTED,
            "apply_patch computer computer_use_preview local_shell shell": _TAUGHT,
            "custom": _FREE_FORM,
            "namespace": _CODEX_SPACE,
        },
        unknown="a tool of a type that this gateway does not know",
    ),
    "responses.tool": table(
        "type name description parameters strict",
        "output_schema",
        {**_CALLERS, "async": _ASYNC, "defer_loading": ("a tool to be found by a search", "offer it at once")},
        harmless=_ONLY_DIRECT,
    ),
    "responses.tool_choices": table(
        "auto none required function",
        refused={
            "allowed_tools": ("a choice among some tools", "offer only these"),
            "apply_patch code_interpreter computer computer_use computer_use_preview custom file_search "
            "image_generation mcp programmatic_tool_calling shell web_search_preview": _HOSTED,
        },
        unknown="a choice that this gateway does not know",
    ),
    "responses.tool_choice": table("type name"),
    "responses.text": table("format", "verbosity"),
    "responses.formats": table("text json_schema json_object", unknown="a format that this gateway does not know"),
    "responses.format": table("type name schema strict description"),
}  # fmt: skip


def plain(name: str) -> str:
    """Return a name of the client's so that it fits into a header, a log and an error: short, and printable ASCII."""
    return "".join(c if " " < c < "\x7f" else "?" for c in name[:80])


def undated(kind: str) -> str:
    """Return a type without the date of its version."""
    return _VERSION.sub("", kind)


class Walk:
    """The way through one request: it looks rows up, and remembers what was left out."""

    def __init__(self, tables: Mapping[str, Table] = TABLES) -> None:
        self._tables = tables
        self._omitted: dict[str, None] = {}

    @property
    def omitted(self) -> tuple[str, ...]:
        """Return the names of what was left out, each once, in the order of the request."""
        return tuple(self._omitted)

    def omit(self, name: str) -> None:
        """Remember that something was left out because it only advises."""
        self._omitted[name] = None

    def fields(self, value: Mapping[str, Any], table: str, path: str) -> Iterator[str]:
        """Yield the names of the fields that are carried. Raise CannotCarry for one that is not."""
        rows = self._tables[table]
        for name, one in value.items():
            if name in rows.carried:
                yield name
            elif name in rows.advisory:
                self.omit(name)
            elif name not in rows.refused and rows.open:
                yield name
            elif (asks(one) or (one == {} and name in _ASKED_BY_NAME)) and one not in rows.harmless.get(name, ()):
                what, hint = rows.refused.get(name, (rows.unknown, ""))
                raise CannotCarry(f"{path}.{plain(name)}" if path else plain(name), what, hint)

    def check(self, value: Mapping[str, Any], table: str, path: str) -> None:
        """Raise CannotCarry if a field of `value` is refused."""
        if value.keys() <= self._tables[table].carried:
            return  # nearly always
        for _ in self.fields(value, table, path):
            pass

    def kind(self, kind: str, table: str, path: str) -> bool:
        """Return whether something of this type is carried; False if it is left out. Raise CannotCarry if refused."""
        rows = self._tables[table]
        if kind in rows.carried:
            return True
        bare = undated(kind)
        if bare in rows.advisory:
            self.omit(bare)
            return False
        what, hint = rows.refused.get(bare, (rows.unknown, ""))
        raise CannotCarry(path, what if bare in rows.refused else f"{what}: {plain(kind)!r}", hint)


def asks(value: Any) -> bool:
    """Return whether a field's value asks for anything: null, false, "", [] and {} do not."""
    return value is not None and value is not False and value != "" and value != [] and value != {}
