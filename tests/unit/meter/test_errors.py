from __future__ import annotations

import json

import pytest

from farmhand.meter.errors import problem_from_answer, problem_from_event

KEY = "sk-ant-test-canary-0123456789"


def answer(kind: str, message: str, **more: object) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "invalid_request", False),
        (401, "authentication_error", False),
        (402, "billing_error", False),
        (403, "permission_error", False),
        (413, "request_too_large", False),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (504, "timeout_error", True),
        (529, "overloaded_error", True),
        (418, "teapot", False),
    ],
)
def test_each_status_has_its_code_and_says_whether_it_may_pass(status: int, code: str, retryable: bool) -> None:
    problem = problem_from_answer(status, answer("teapot", "no"))
    assert (problem.code, problem.retryable, problem.status) == (code, retryable, status)


@pytest.mark.parametrize(
    "more",
    [{"details": {"error_code": "enforced_spend_limit_reached"}}, {"error_code": "enforced_spend_limit_reached"}],
)
def test_a_spent_limit_is_final_though_it_is_a_429(more: dict[str, object]) -> None:
    problem = problem_from_answer(429, answer("rate_limit_error", "spent", **more))
    assert (problem.code, problem.retryable) == ("spend_limit", False)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("claude-3-5-haiku-20241022", "haiku"),
        ("claude-opus-4", "opus"),
        ("claude-sonet-5-5", "sonnet"),
        ("gpt-4", "haiku"),
    ],
)
def test_an_unknown_model_names_the_nearest_known_one(model: str, hint: str) -> None:
    problem = problem_from_answer(404, answer("not_found_error", f"model: {model}"), model=model)
    assert problem.code == "unknown_model"
    assert hint in problem.hint


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":3}', b"\xff", b'{"error":{"message":null}}'])
def test_an_answer_of_any_form_becomes_one_line(body: bytes) -> None:
    problem = problem_from_answer(503, body)
    assert problem.message == "the API answered HTTP 503"


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + answer("invalid_request_error", "Your credit balance is too low to go on"),
        answer("invalid_request_error", "Your credit balance is too low to \ud83d"),
        answer("invalid_request_error", "Your credit balance is too low to X").replace(b"X", b"\xff"),
    ],
    ids=["byte order mark", "half an emoji", "no UTF-8"],
)
def test_a_body_that_a_strict_reader_refuses_is_still_understood(body: bytes) -> None:
    problem = problem_from_answer(400, body)
    assert (problem.code, problem.rejects_key) == ("billing_error", True)
    assert problem.message.startswith("Your credit balance is too low to ")
    problem.message.encode()


def test_messages_are_one_line_short_and_without_keys() -> None:
    problem = problem_from_answer(401, answer("x", f"bad\nkey {KEY} " + "y" * 5000))
    assert KEY not in problem.message
    assert "\n" not in problem.message
    assert len(problem.message) <= 500


@pytest.mark.parametrize(("kind", "retryable"), [("overloaded_error", True), ("invalid_request_error", False)])
def test_an_error_event_is_a_problem(kind: str, retryable: bool) -> None:
    assert problem_from_event({"error": {"type": kind}}).retryable is retryable
    assert problem_from_event({"error": None}).retryable
