"""What the gateway learns of local servers. llama.cpp is the real one, in tests/integration/gateway/test_llama.py.

Ollama, LM Studio and vLLM do not run here. Their answers are as their documentation has them. Whatever else is
asked of these fakes is a 404.
"""

from __future__ import annotations

from typing import Any

import pytest

from farmhand.gateway.health import Prober, Seen, Unlike, look
from farmhand.meter.upstream import Upstream
from tests.support.gateway import free_port
from tests.support.local_server import LLAMA, LocalServerPlay

#: Kind → its answers, and what is seen. Sources: the pages that farmhand.gateway.health names.
SERVERS: dict[str, tuple[dict[str, Any], Seen]] = {
    "llama.cpp": (LLAMA, Seen(kind="llama.cpp", model="m", context=4096, schema=True, slots=1)),
    "llama.cpp without --props": (
        {"/v1/models": LLAMA["/v1/models"]},
        Seen(kind="llama.cpp", model="m", schema=True),
    ),
    "vLLM": (
        {"/v1/models": {"object": "list", "data": [{"id": "q", "owned_by": "vllm", "max_model_len": 32768}]}},
        Seen(kind="vLLM", model="q", context=32768, schema=True),
    ),
    "vLLM with an adapter": (
        {
            "/v1/models": {
                "data": [
                    {"id": "q", "owned_by": "vllm", "root": "/q", "parent": None, "max_model_len": 32768},
                    {"id": "adapter", "owned_by": "vllm", "root": "/a", "parent": "q", "max_model_len": None},
                ]
            }
        },
        Seen(kind="vLLM", model="q", context=32768, schema=True),
    ),
    "nothing but names": (
        {"/v1/models": {"data": [{"id": "z", "owned_by": None, "type": None, "state": None}]}},
        Seen(kind="unknown", model="z"),
    ),
    "llama.cpp that says what cannot be": (
        LLAMA | {"/props": {"default_generation_settings": {"n_ctx": -1}, "modalities": None, "total_slots": 2**62}},
        Seen(kind="llama.cpp", model="m", schema=True, slots=4096),
    ),
    "more than there is": (
        {"/v1/models": {"data": [{"id": "q", "max_model_len": 2**70}]}},
        Seen(kind="vLLM", model="q", schema=True),
    ),
    "10,000 models": (
        {"/v1/models": {"data": [{"id": f"m{number}", "owned_by": "x"} for number in range(10_000)]}},
        Seen(kind="unknown", model="m0"),
    ),
    "Ollama, loaded": (
        {
            "/v1/models": {"object": "list", "data": [{"id": "qwen3:8b", "object": "model", "owned_by": "library"}]},
            "/api/version": {"version": "0.14.1"},
            "/api/ps": {"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "context_length": 16384}]},
            "/api/show": {"capabilities": ["completion", "tools", "vision"], "model_info": {}},
        },
        Seen(kind="Ollama", model="qwen3:8b", context=16384, vision=True, schema=True),
    ),
    "Ollama, not loaded": (
        {
            "/v1/models": {"object": "list", "data": [{"id": "qwen3:8b", "owned_by": "library"}]},
            "/api/version": {"version": "0.14.1"},
            "/api/ps": {"models": []},
            "/api/show": {"capabilities": ["completion"]},
        },
        Seen(kind="Ollama", model="qwen3:8b", schema=True),
    ),
    "LM Studio": (
        {
            "/v1/models": {"data": [{"id": "qwen2-vl", "object": "model", "owned_by": "organization_owner"}]},
            "/api/v0/models": {
                "data": [
                    {"id": "other", "type": "llm", "state": "loaded", "loaded_context_length": 1},
                    {"id": "qwen2-vl", "type": "vlm", "state": "loaded", "loaded_context_length": 8192},
                ]
            },
        },
        Seen(kind="LM Studio", model="qwen2-vl", context=8192, vision=True, schema=True),
    ),
    "another": ({"/v1/models": {"data": [{"id": "z"}]}}, Seen(kind="unknown", model="z")),
}


@pytest.mark.parametrize("name", SERVERS)
async def test_each_kind_of_server_is_known_by_its_own_answers(name: str) -> None:
    answers, seen = SERVERS[name]
    async with LocalServerPlay(answers).serve() as server:
        assert await look(Upstream(server.url), "", {}) == seen
        assert await look(Upstream(server.url), seen.model, {}) == seen


@pytest.mark.parametrize(
    ("models", "wanted", "words"),
    [
        ({"data": []}, "", "no model"),
        ({"data": [{"id": "a"}]}, "b", "no model b"),
        ({"data": None}, "", "no model$"),
        ({"data": [{}]}, "", "name that can be shown"),
        ({"data": [{"id": "m\nlocal:two: up\x1b[31m"}]}, "", "name that can be shown"),
        ({"data": [{"id": "m" * 5000}]}, "", "name that can be shown"),
        ([], "", "no model server"),
        ({"data": [{"id": 7}]}, "", "no model server"),
        ({"data": "x"}, "", "no model server"),
    ],
)
async def test_an_answer_that_is_none_says_so(models: Any, wanted: str, words: str) -> None:
    async with LocalServerPlay({"/v1/models": models}).serve() as server:
        with pytest.raises(Unlike, match=words):
            await look(Upstream(server.url), wanted, {})


async def test_a_prober_says_why_a_server_is_not_used_and_sees_it_come_back() -> None:
    port = free_port()
    prober = Prober(Upstream(f"http://127.0.0.1:{port}"), "", {})
    await prober.look()
    assert (prober.seen, prober.problem and prober.problem.code) == (None, "down")
    assert prober.problem is not None
    assert prober.problem.words == f"not running (connection refused, 127.0.0.1:{port})"
    async with LocalServerPlay({}).serve() as server:
        other = Prober(Upstream(server.url), "", {})
        await other.look()
        assert other.problem is not None
        assert "HTTP 404" in other.problem.words
        server.answers = LLAMA
        await other.look()
        assert (other.problem is None, other.seen is not None and other.seen.context) == (True, 4096)
