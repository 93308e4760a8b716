"""The gateway's time series: what each counts, and that no label is a client's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_metrics import told_metrics


def samples(metrics: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def test_each_part_of_a_turn_is_counted() -> None:
    found = samples(told_metrics())

    def value(name: str, **labels: str) -> float:
        return found[f"farmhand_gateway_{name}", frozenset(labels.items())]

    assert value("turns_total", work_class="chat", backend="local:qwen", outcome="done") == 1
    assert value("turns_total", work_class="agent", backend="advice", outcome="advice") == 1
    assert value("advice_total", backend="local:small", reason="down") == 1
    # A turn that somebody took is no advice, whoever else did not.
    advised = {dict(labels)["backend"] for name, labels in found if name == "farmhand_gateway_advice_total"}
    assert "local:qwen" not in advised
    assert value("added_seconds_bucket", le="0.001") == 1
    assert value("added_seconds_count") == 2
    assert value("first_byte_seconds_bucket", le="0.25") == 0
    assert value("first_byte_seconds_count") == 1
    assert (value("open_turns"), value("open_streams")) == (2, 1)
    assert value("backend_up", backend="local:qwen") == 1
    assert value("backend_up", backend="local:small") == 0
    assert value("context_tokens", backend="local:qwen") == 4096
    assert value("settings_in_force") == 1


def test_a_cost_that_is_not_known_is_never_zero() -> None:
    found = samples(told_metrics())
    where = frozenset({("work_class", "chat"), ("backend", "metered")})
    assert found["farmhand_gateway_cost_usd_total", where] == 2.5
    assert found["farmhand_gateway_cost_unknown_total", where] == 1


def test_settings_that_were_refused_show() -> None:
    metrics = told_metrics()
    metrics.reloaded(ok=False)
    assert samples(metrics)["farmhand_gateway_settings_in_force", frozenset()] == 0


def test_the_documentation_has_them_all() -> None:
    document = (Path(__file__).resolve().parents[3] / "docs/gateway.md").read_text()
    families = text_string_to_metric_families(told_metrics().text().decode())
    assert [one.name for one in families if f"`{one.name}" not in document] == []
