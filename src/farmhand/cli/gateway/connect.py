"""`farmhand gateway connect CLIENT`: how a coding harness is pointed at the gateway. It prints and never edits."""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template
from typing import Any

import click

from farmhand.cli.gateway.verb import gateway_verb
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import FarmUnreachable, NotConfigured
from farmhand.gateway import config, control

#: The context that a recipe names if no local server says its own, in tokens.
_CONTEXT = 32768
_EXPORT = 'export FARMHAND_GATEWAY_TOKEN="$$(farmhand gateway token$file)"\n'
#: Client → its recipe. Each is tried with the real client: tests/e2e/test_gateway_clients.py.
RECIPES: dict[str, str] = {
    "claude": """# Claude Code: in the shell that starts it, and only there.
export ANTHROPIC_BASE_URL=$base
export ANTHROPIC_AUTH_TOKEN="$$(farmhand gateway token$file)"
export ANTHROPIC_MODEL=claude-farmhand-agent
export ANTHROPIC_DEFAULT_HAIKU_MODEL=claude-farmhand-chat
export CLAUDE_CODE_MAX_CONTEXT_TOKENS=$context
export CLAUDE_CODE_ATTRIBUTION_HEADER=0
export CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY=1
# Its smallest turn has about 17,000 tokens: give the local model 64k of context or more.
""",
    "pi": _EXPORT
    + """# ~/.pi/agent/models.json; then: pi --provider farmhand --model farmhand/agent
# It speaks the others too: "api": "openai-responses", or "anthropic-messages" with "baseUrl": "$base"
{
  "providers": {
    "farmhand": {
      "baseUrl": "$base/v1",
      "api": "openai-completions",
      "apiKey": "$$FARMHAND_GATEWAY_TOKEN",
      "compat": {"supportsDeveloperRole": false, "supportsReasoningEffort": false},
      "models": [{"id": "farmhand/agent", "contextWindow": $context, "maxTokens": 4096}]
    }
  }
}
""",
    "codex": _EXPORT
    + """# ~/.codex/config.toml
model = "farmhand/agent"
model_provider = "farmhand"
model_context_window = $context
web_search = "disabled"
[model_providers.farmhand]
name = "Farmhand"
base_url = "$base/v1"
env_key = "FARMHAND_GATEWAY_TOKEN"
wire_api = "responses"
request_max_retries = 0
# A local model can be given neither tools in groups (agents, MCP servers)$nor_images.
[agents]
enabled = false
$no_images""",
    "opencode": _EXPORT
    + """# opencode.json
{
  "model": "farmhand/agent",
  "small_model": "farmhand/chat",
  "provider": {
    "farmhand": {
      "npm": "@ai-sdk/openai-compatible",
      "options": {"baseURL": "$base/v1", "apiKey": "{env:FARMHAND_GATEWAY_TOKEN}"},
      "models": {
        "agent": {"limit": {"context": $context, "output": 4096}},
        "chat": {"limit": {"context": $context, "output": 4096}}
      }
    }
  }
}
""",
    "aider": """# aider: in the shell that starts it.
export OPENAI_API_BASE=$base/v1
export OPENAI_API_KEY="$$(farmhand gateway token$file)"
aider --model openai/farmhand/chat
""",
    "llm": """# extra-openai-models.yaml, in the directory that `dirname "$$(llm logs path)"` prints
- model_id: farmhand
  model_name: farmhand/chat
  api_base: $base/v1
  api_key_name: farmhand
# once: farmhand gateway token$file | llm keys set farmhand; then: llm -m farmhand "a question"
""",
    "continue": """# Once: echo "FARMHAND_GATEWAY_TOKEN=$$(farmhand gateway token$file)" >> ~/.continue/.env
# ~/.continue/config.yaml; then: cn
name: Farmhand
version: 1.0.0
schema: v1
models:
  - name: Farmhand
    provider: openai
    model: farmhand/agent
    apiBase: $base/v1
    apiKey: $${{ secrets.FARMHAND_GATEWAY_TOKEN }}
    roles: [chat, edit, apply]
    defaultCompletionOptions:
      contextLength: $context
""",
}


@gateway_verb("connect")
@click.argument("client", type=click.Choice(tuple(RECIPES)))
def command(path: Path, *, as_json: bool, client: str) -> VerbResult:
    """Print how CLIENT is pointed at this gateway. Nothing is edited, and the token itself is not in the text."""
    settings = config.load(path)
    host, port = settings.address
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    file = "" if path == config.default_path() else f" --gateway-config {shlex.quote(str(path.absolute()))}"
    state = _first(settings)
    context = state.get("context", 0)
    notes = [] if context else [f"no local server says its context: {_CONTEXT} is a guess"]
    blind = not state.get("vision", False)
    text = Template(RECIPES[client]).substitute(
        base=base,
        file=file,
        context=context or _CONTEXT,
        nor_images=" nor images" if blind else "",
        no_images="[features]\nview_image = false\n" if blind else "",
    )
    return VerbResult({"client": client, "recipe": text, "token_file": str(settings.token_path)}, text, notes=notes)


def _first(settings: config.GatewayConfig) -> dict[str, Any]:
    """Return the state of the first local server that is up, as the running gateway sees it; empty if there is none."""
    try:
        states = control.ask(settings, "GET", "/farmhand/v1/status")["states"]
    except (FarmUnreachable, NotConfigured):
        return {}
    return next((one for one in states if one["residency"] == "local" and not one["closed"]), {})
