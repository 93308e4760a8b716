from __future__ import annotations

from farmhand.core.task import DEFAULT_MODEL, MODELS, Task, Usage, resolve_model


def test_auto_is_cli_with_tools_and_api_without() -> None:
    assert Task(id="a", prompt="x").resolved_engine == "api"
    assert Task(id="a", prompt="x", tools=("Bash",)).resolved_engine == "cli"
    assert Task(id="a", prompt="x", engine="cli").resolved_engine == "cli"


def test_the_default_is_the_current_haiku_and_full_ids_pass() -> None:
    assert resolve_model(DEFAULT_MODEL) == MODELS["haiku"] == "claude-haiku-5-5"
    assert resolve_model("claude-anything-9") == "claude-anything-9"


def test_usage_adds_every_figure() -> None:
    total = Usage(input_tokens=1, output_tokens=2, requests=1)
    total.add(Usage(input_tokens=3, cache_read_input_tokens=4, requests=1))
    assert total == Usage(input_tokens=4, output_tokens=2, cache_read_input_tokens=4, requests=2)
