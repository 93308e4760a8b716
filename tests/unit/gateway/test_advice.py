"""Advice: its texts, and what the official SDKs make of it in each dialect, plain and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from farmhand.gateway import advice
from farmhand.gateway.advice import MOST, OwnAnswer, answer, not_carried, text
from farmhand.gateway.policy import CANNOT_CARRY, Rule, decide
from farmhand.gateway.turn import BackendState, CannotCarry, Decision, Dialect, Reason
from tests.support.serving import serving
from tests.unit.gateway.turns import CENT, DAY, DOWN, SHUT, facts, local, metered, plan, turn

DIALECTS: tuple[Dialect, ...] = ("messages", "chat", "responses")
RULES = (Rule(order=("local", "subscription", "metered")),)
AGENT: dict[str, Any] = {"work_class": "agent", "tools": 12, "tokens": 16_812}


def refused(*states: BackendState, **case: Any) -> Decision:
    made = decide(facts(**case), states, RULES, "", "fh-8f2c")
    assert made.backend == ""
    return made


class TestTheTexts:
    """The lines that a person reads."""

    def test_what_can_be_opened_is_named_with_its_command(self) -> None:
        assert text(refused(local(closed=DOWN), plan(), metered(closed=SHUT), **AGENT)) == (
            "Farmhand kept this turn from being paid for. agent turn, 12 tools, about 16,800 tokens. "
            "local qwen: not running (connection refused, 127.0.0.1:8080). subscription: not for agent turns. "
            "metered: off. Start the local server, or allow it: "
            "farmhand gateway allow metered --for 30m --max-usd 1 --class agent. (fh-8f2c)"
        )

    def test_no_command_is_named_that_does_not_exist(self) -> None:
        said = text(refused(local(closed=DOWN)))
        assert "farmhand gateway allow" not in said
        assert said.endswith("Start the local server, or see why: farmhand gateway explain fh-8f2c. (fh-8f2c)")

    def test_without_any_server_the_first_step_is_to_set_one_up(self) -> None:
        assert text(refused()) == (
            "Farmhand kept this turn from being paid for. chat turn, about 100 tokens. local: none is set up. "
            "subscription: off. metered: off. Set up a local server in gateway.toml, or see why: "
            "farmhand gateway explain fh-8f2c. (fh-8f2c)"
        )

    def test_a_spent_budget_says_when_it_resets(self) -> None:
        said = text(refused(local(closed=DOWN), metered(spent_pico=DAY), most_pico=CENT, **AGENT))
        assert "metered: today's US$ 2 are spent (2.00), resets 00:00 UTC." in said

    def test_a_server_that_is_too_small(self) -> None:
        assert "local qwen: 16812 tokens > 4096 maximum." in text(refused(local(context=4096), **AGENT))

    def test_what_the_turn_carries(self) -> None:
        said = text(refused(tools=1, images=2, documents=1, background=True, tokens=999))
        assert "background turn, 1 tool, 2 images, 1 document, about 999 tokens." in said

    @pytest.mark.parametrize("number", [1, 2, 5, 40])
    @pytest.mark.parametrize("words", ["off", "not running (connection refused, 127.0.0.1:8080)", "x " * 300])
    def test_it_is_one_line_of_limited_length_with_the_command_at_its_end(self, number: int, words: str) -> None:
        reason = Reason("down", words + "\nand more")
        made = refused(*(local(f"server{n}", closed=reason) for n in range(number)), metered(closed=SHUT), **AGENT)
        for said in (text(made), advice.cannot_carry_text(made, CannotCarry("x" * 500, "y " * 300, "z"))):
            assert len(said) <= MOST
            assert "\n" not in said
            assert said.endswith(" (fh-8f2c)")
        assert "farmhand gateway allow metered --for 30m --max-usd 1 --class agent." in text(made)
        assert "local server0: " in text(made)


def error_of(given: OwnAnswer) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(given.body)
    error: dict[str, Any] = document["error"]
    return error


@pytest.mark.parametrize("dialect", DIALECTS)
class TestWhatAClientCanActOn:
    """These are 400 in every dialect: the client leaves something out or makes it shorter."""

    def test_safeguards(self, dialect: Dialect) -> None:
        given = answer(refused(local(), safeguards=True), turn(dialect), "message")
        assert given.status == 400
        assert error_of(given)["message"] == "safeguards: this backend does not run them"

    def test_a_conversation_that_has_outgrown_its_server(self, dialect: Dialect) -> None:
        made = decide(facts(tokens=15_024), (local(context=4096),), RULES, "local:qwen", "fh-1")
        given = answer(made, turn(dialect), "message")
        assert given.status == 400
        assert error_of(given)["message"] == "prompt is too long: 15024 tokens > 4096 maximum"
        assert error_of(given).get("code") == (None if dialect == "messages" else "context_length_exceeded")

    @pytest.mark.parametrize("part", sorted(CANNOT_CARRY))
    def test_what_cannot_be_carried(self, dialect: Dialect, part: str) -> None:
        value = ("web_search",) if part == "hosted_tools" else 1 if part in ("images", "documents") else True
        given = answer(refused(local(), **{part: value}), turn(dialect), "message")
        assert given.status == 400
        error = error_of(given)
        assert error["message"].startswith("Farmhand cannot pass this on without losing something: local qwen: it ")
        assert error.get("code") == (None if dialect == "messages" else "farmhand_cannot_carry")

    def test_with_its_place(self, dialect: Dialect) -> None:
        made = refused(local(), documents=1)
        given = not_carried(made, turn(dialect), CannotCarry("messages[3].content[1]", "a document", "send it as text"))
        assert given.status == 400
        assert error_of(given)["message"] == (
            "Farmhand cannot pass this on without losing something: messages[3].content[1] is a document, which chat "
            "completions cannot carry (local qwen). Send it as text, or allow a backend that takes it. (fh-8f2c)"
        )


def test_a_backend_that_a_rule_leaves_out_is_not_said_to_be_unable() -> None:
    made = decide(facts(documents=1, safeguards=True), (local(),), (Rule(order=()),), "", "fh-1")
    given = answer(made, turn())
    assert given.status == 402
    assert "local qwen: no rule sends this turn there." in error_of(given)["message"]


MADE = refused(local(closed=DOWN), **AGENT)


@contextmanager
def served(given: OwnAnswer, asked: list[str]) -> Iterator[str]:
    """The address of a server that gives this answer to everything; `asked` gets the paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        def log_message(self, *args: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def ask(dialect: Dialect, given: OwnAnswer, asked: list[str], *, streamed: bool) -> str:
    """The text that the official SDK has of an answer, with its usual retries; `asked` gets the paths it asked for."""
    with served(given, asked) as url:
        return ask_in_messages(url, streamed) if dialect == "messages" else ask_openai(dialect, url, streamed)


def ask_in_messages(url: str, streamed: bool) -> str:
    hello: Any = [{"role": "user", "content": "hello"}]
    with anthropic.Anthropic(api_key="test", base_url=url) as client:
        whole: anthropic.types.Message
        if streamed:
            with client.messages.stream(model="m", max_tokens=9, messages=hello) as stream:
                whole = stream.get_final_message()
        else:
            whole = client.messages.create(model="m", max_tokens=9, messages=hello)
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 0, 0)
    (block,) = whole.content
    assert block.type == "text"
    return str(block.text)


def ask_openai(dialect: Dialect, url: str, streamed: bool) -> str:
    hello: Any = [{"role": "user", "content": "hello"}]
    with openai.OpenAI(api_key="test", base_url=f"{url}/v1") as client:
        if dialect == "chat" and streamed:
            chunks = list(client.chat.completions.create(model="m", messages=hello, stream=True))
            assert chunks[-1].choices[0].finish_reason == "stop"
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        if dialect == "chat":
            completion = client.chat.completions.create(model="m", messages=hello)
            assert completion.choices[0].finish_reason == "stop"
            return completion.choices[0].message.content or ""
        response: Any
        if streamed:
            with client.responses.stream(model="m", input="hello") as events:
                response = events.get_final_response()
        else:
            response = client.responses.create(model="m", input="hello")
    assert response.status == "completed"
    return str(response.output_text)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_sdk_shows_the_text_of_an_error_and_asks_once(dialect: Dialect, streamed: bool) -> None:
    given = answer(MADE, turn(dialect, streamed=streamed))
    kinds: tuple[type[Exception], ...] = (anthropic.APIStatusError, openai.APIStatusError)
    asked: list[str] = []
    with pytest.raises(kinds, match="Farmhand kept this turn from being paid for") as caught:
        ask(dialect, given, asked, streamed=streamed)
    assert len(asked) == 1
    problem: Any = caught.value
    assert problem.status_code == (402 if dialect == "messages" else 400)
    assert problem.response.headers["x-farmhand-decision"] == "fh-8f2c"
    if dialect == "messages":
        assert problem.body["error"]["type"] == "billing_error"
    else:
        assert (problem.code, problem.type, problem.param) == ("farmhand_deferred", "invalid_request_error", None)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("streamed", [False, True])
def test_advice_as_a_message(dialect: Dialect, streamed: bool) -> None:
    given = answer(MADE, turn(dialect, streamed=streamed), "message")
    assert given.status == 200
    assert ask(dialect, given, [], streamed=streamed) == text(MADE)
