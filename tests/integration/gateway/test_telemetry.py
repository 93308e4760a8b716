"""A metered turn is a span below the harness's."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.telemetry import names
from tests.support.collector import Collector
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import DEFAULT_KEY, MessagesApi
from tests.support.paid import HAIKU, VARIABLE, asked, charges, settings, turn

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("parent", [f"00-{TRACE}-{SPAN}-01", "garbage"])
async def test_a_metered_turn_is_a_span_of_the_harness_s_trace(tmp_path: Path, parent: str) -> None:
    async with MessagesApi() as api, Collector() as collector, GatewayProcess(tmp_path, settings(api)) as gateway:
        gateway.environ |= {"FARMHAND_OTEL_ENDPOINT": collector.url, VARIABLE: DEFAULT_KEY}
        await gateway.start()
        canary = "canary-of-a-prompt"
        status, _, _ = await gateway.call(
            "POST", "/v1/messages", turn(messages=[{"role": "user", "content": canary}]), {"traceparent": parent}
        )
        assert status == 200
        await gateway.stop()
        [span] = collector.spans
        [charge] = charges(gateway.database)
        [entry] = asked(api)
    assert span.name == f"chat {HAIKU}"
    assert (span.trace, span.parent) == ((TRACE, SPAN) if parent != "garbage" else (span.trace, ""))
    assert span.attributes[names.PLACE] == "gateway"
    assert span.attributes[names.COST] == charge["pico"] / 10**12
    assert span.attributes[names.OUTPUT] == entry.usage["output_tokens"]
    # The trace is not the provider's business.
    assert "traceparent" not in {name.lower() for name in entry.headers}
    for secret in (canary, DEFAULT_KEY, gateway.token):
        assert secret.encode() not in collector.bytes
