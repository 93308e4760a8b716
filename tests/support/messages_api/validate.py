"""Checks of a request: its headers, its JSON, and the body of /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.messages_api import catalog
from tests.support.messages_api.catalog import Model
from tests.support.messages_api.errors import ApiError, bad
from tests.support.messages_api.fields import (
    Object,
    a_bool,
    a_list,
    a_number,
    a_string,
    an_integer,
    an_object,
    cache_control,
    one_of,
    only,
    required,
    tag,
)
from tests.support.messages_api.messages import check_messages, check_system
from tests.support.messages_api.tools import check_schema, check_tool_choice, check_tools

MAX_BYTES = 32 * 1024 * 1024
MAX_MESSAGES = 100_000
VERSIONS = ("2023-06-01", "2026-10-21")
#: A login's access token: only as bearer token, and only with this beta. Source: requests of the CLI 2.1.330.
OAUTH_TOKEN, OAUTH_BETA = "sk-ant-oat", "oauth-2025-04-20"
EFFORTS = ("low", "medium", "high", "xhigh", "max")
_SAMPLING = ("temperature", "top_p", "top_k")
_COUNTED = (
    "cache_control", "context_management", "messages", "model", "output_config", "speed", "system", "thinking",
    "tool_choice", "tools",
)  # fmt: skip
_KNOWN = (
    *_COUNTED, *_SAMPLING, "container", "diagnostics", "inference_geo", "max_tokens", "mcp_servers", "metadata",
    "service_tier", "stop_sequences", "stream",
)  # fmt: skip
#: Body fields that exist only with a beta header, by the header value's beginning.
_BETA_FIELDS = {"context_management": "context-management-", "mcp_servers": "mcp-client-"}


@dataclass
class Request:
    """A request that passed every check."""

    model: Model
    body: Object
    thinking: bool
    tools: list[Object] = field(default_factory=list)

    @property
    def forced_tool(self) -> Object | None:
        """The tool that `tool_choice` makes the model call."""
        choice = self.body.get("tool_choice") or {}
        if choice.get("type") == "tool":
            return next(tool for tool in self.tools if tool["name"] == choice["name"])
        return self.tools[0] if choice.get("type") == "any" else None

    @property
    def schema(self) -> Object | None:
        """The JSON Schema that the answer must satisfy."""
        found = ((self.body.get("output_config") or {}).get("format") or {}).get("schema")
        return dict(found) if found is not None else None


def check_headers(headers: Mapping[str, str], keys: frozenset[str]) -> None:
    """Key first, then version, as the API does it."""
    key = presented_key(headers)
    if not key:
        raise ApiError(401, "x-api-key header is required")
    as_key, of_login = "x-api-key" in headers, key.startswith(OAUTH_TOKEN)
    if key not in keys or (as_key and of_login):
        raise ApiError(401, "invalid x-api-key" if as_key else "Invalid bearer token")
    sent = betas(headers)
    if any(value.startswith("oidc-federation-") for value in sent):
        raise ApiError(400, "Unexpected value(s) `oidc-federation` for the `anthropic-beta` header.")
    if of_login and OAUTH_BETA not in sent:
        raise ApiError(401, "OAuth authentication is currently not supported.")
    version = headers.get("anthropic-version")
    if not version:
        raise bad("anthropic-version", "header is required")
    if version not in VERSIONS:
        raise bad("anthropic-version", f'"{version}" is not a valid version')


def presented_key(headers: Mapping[str, str]) -> str:
    """The key of `x-api-key`, or of `Authorization: Bearer`, which the SDKs send since API version 2026-10-21."""
    if headers.get("x-api-key"):
        return headers["x-api-key"]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def check_content_type(headers: Mapping[str, str]) -> None:
    """A body must be announced as JSON."""
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(400, "Content-Type header must be 'application/json'")


def _no_constant(name: str) -> Any:
    raise ValueError(f"unexpected constant {name}")


def parse(raw: bytes) -> Object:
    """The body as a JSON object: UTF-8, no lone surrogates, no NaN."""
    try:
        text = raw.decode()
        value = json.loads(text, parse_constant=_no_constant)
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "The request body is not valid JSON: no low surrogate in string") from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "Input should be a valid dictionary or object to extract fields from")
    return value


def betas(headers: Mapping[str, str]) -> frozenset[str]:
    """The values of the anthropic-beta header."""
    return frozenset(part.strip() for part in headers.get("anthropic-beta", "").split(",") if part.strip())


def check(body: Object, headers: Mapping[str, str], *, counting: bool = False) -> Request:
    """The body of /v1/messages, or of count_tokens where `counting`."""
    beta = betas(headers)
    needed = ("messages", "model") if counting else ("max_tokens", "messages", "model")
    _check_shape(body, needed, counting, headers.get("anthropic-version", ""), beta)
    name = a_string(body["model"], "model")
    if not name:
        raise bad("model", "String should have at least 1 character")
    model = catalog.find(name)
    if model is None:
        raise ApiError(404, f"model: {name}")
    if not counting:
        _check_max_tokens(body, model)
    thinking = _check_thinking(body, model, beta, counting)
    _check_sampling(body, model, thinking)
    if "system" in body:
        check_system(body["system"])
    if len(a_list(body["messages"], "messages")) > MAX_MESSAGES:
        raise bad("messages", f"List should have at most {MAX_MESSAGES} items after validation")
    check_messages(body["messages"], model, beta)
    tools = check_tools(body.get("tools") or [])
    if body.get("tool_choice") is not None:
        # Thinking that is on only by default steps aside for a forced tool; thinking that was asked for does not.
        check_tool_choice(body["tool_choice"], tools, thinking and bool(body.get("thinking")))
        thinking = thinking and body["tool_choice"]["type"] in ("auto", "none")
    _check_output_config(body.get("output_config"), model)
    _check_rest(body)
    _check_cache_markers(body)
    return Request(model, body, thinking, tools)


def _check_shape(body: Object, needed: tuple[str, ...], counting: bool, version: str, beta: frozenset[str]) -> None:
    required(body, "", needed)
    allowed = set(_COUNTED if counting else _KNOWN)
    if version >= "2026-10-21":
        allowed -= set(_SAMPLING)
    for name, prefix in _BETA_FIELDS.items():
        if not any(value.startswith(prefix) for value in beta):
            allowed.discard(name)
    only(body, "", allowed)


def _check_max_tokens(body: Object, model: Model) -> None:
    value = an_integer(body["max_tokens"], "max_tokens", least=0)
    if value > model.max_tokens:
        raise bad(
            "max_tokens",
            f"{value} > {model.max_tokens}, which is the maximum allowed number of output tokens for {model.id}",
        )


def _check_thinking(body: Object, model: Model, beta: frozenset[str], counting: bool) -> bool:
    value = body.get("thinking")
    if value is None:
        return model.thinks
    thinking = an_object(value, "thinking")
    kind = tag(thinking, "thinking", ("adaptive", "between_tools", "disabled", "enabled"))
    if kind not in model.thinking:
        if kind == "enabled":
            raise ApiError(
                400,
                '"thinking.type.enabled" is not supported for this model. '
                'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.',
            )
        raise ApiError(400, f'"thinking.type.{kind}" is not supported for this model.')
    if kind == "enabled":
        here = "thinking.enabled"
        required(thinking, here, ("budget_tokens",))
        only(thinking, here, ("type", "budget_tokens", "display"))
        budget = an_integer(thinking["budget_tokens"], f"{here}.budget_tokens", least=1024)
        if not counting and budget >= body["max_tokens"]:
            raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    else:
        only(thinking, f"thinking.{kind}", ("type", "display") if kind == "adaptive" else ("type",))
    if "display" in thinking:
        updates = any(value.startswith("thinking-display-updates-") for value in beta)
        displays = ("summarized", "omitted", "updates") if updates else ("summarized", "omitted")
        one_of(thinking["display"], f"thinking.{kind}.display", displays)
    return kind != "disabled"


def _check_sampling(body: Object, model: Model, thinking: bool) -> None:
    if body.get("temperature") is not None:
        temperature = a_number(body["temperature"], "temperature", 0, 1)
        if not model.sampling and temperature != 1:
            raise ApiError(400, "`temperature` is deprecated for this model.")
        if thinking and temperature != 1:
            raise ApiError(400, "`temperature` may only be set to 1 when thinking is enabled.")
        if body.get("top_p") is not None and model.sampling:
            raise ApiError(
                400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
            )
    if body.get("top_p") is not None:
        a_number(body["top_p"], "top_p", 0, 1)
    if body.get("top_k") is not None:
        an_integer(body["top_k"], "top_k", least=0)
    for name in ("top_p", "top_k"):
        if body.get(name) is not None and not model.sampling:
            raise ApiError(400, f"`{name}` is deprecated for this model.")


def _check_output_config(value: object, model: Model) -> None:
    if value is None:
        return
    config = an_object(value, "output_config")
    only(config, "output_config", ("effort", "format", "task_budget"))
    if config.get("effort") is not None:
        one_of(config["effort"], "output_config.effort", EFFORTS)
        if not model.thinks:
            raise ApiError(400, "This model does not support the effort parameter.")
    if config.get("format") is not None:
        format_ = an_object(config["format"], "output_config.format")
        tag(format_, "output_config.format", ["json_schema"])
        required(format_, "output_config.format", ("schema",))
        only(format_, "output_config.format", ("type", "schema"))
        check_schema(an_object(format_["schema"], "output_config.format.schema"), "output_config.format.schema")
        _closed(format_["schema"], "output_config.format.schema")


def _closed(schema: object, path: str) -> None:
    """Structured outputs take closed objects only: `additionalProperties` must be false in each."""
    if isinstance(schema, list):
        for i, item in enumerate(schema):
            _closed(item, f"{path}.{i}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise bad(path, "For 'object' type, 'additionalProperties' must be explicitly set to false")
        for name, item in schema.items():
            if name not in ("const", "enum", "default", "examples"):
                _closed(item, f"{path}.{name}")


def _check_rest(body: Object) -> None:
    if body.get("metadata") is not None:
        metadata = an_object(body["metadata"], "metadata")
        only(metadata, "metadata", ("user_id",))
    if "stream" in body:
        a_bool(body["stream"], "stream")
    for i, stop in enumerate(a_list(body.get("stop_sequences") or [], "stop_sequences")):
        if not a_string(stop, f"stop_sequences.{i}").strip():
            raise bad("stop_sequences", "each stop sequence must contain non-whitespace")
    if body.get("service_tier") is not None:
        one_of(body["service_tier"], "service_tier", ("auto", "standard_only"))
    cache_control(body, "")


def _check_cache_markers(body: Object) -> None:
    count = _markers([body.get("system"), body.get("tools"), body["messages"]])
    if count > 4:
        raise ApiError(400, f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")


def _markers(value: object) -> int:
    if isinstance(value, list):
        return sum(_markers(item) for item in value)
    if isinstance(value, dict):
        own = 1 if isinstance(value.get("cache_control"), dict) else 0
        return own + sum(_markers(value[name]) for name in ("content",) if isinstance(value.get(name), list))
    return 0
