from __future__ import annotations

import pytest

from farmhand.core.errors import FarmUnreachable, UsageError, WireError, from_result


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("not_configured", 0, 3),
        ("bad_key", 400, 3),
        ("unreachable", 0, 4),
        ("lost", 0, 4),
        ("host_key_unknown", 0, 4),
        ("host_key_changed", 0, 4),
        ("login_refused", 0, 4),
        ("agent_missing", 0, 4),
        ("agent_too_old", 426, 4),
        ("client_too_old", 426, 4),
        ("stranger", 403, 4),
        ("draining", 503, 4),
        ("invalid_task", 400, 2),
        ("empty_prompt", 400, 2),
        ("id_conflict", 409, 2),
        ("too_large", 413, 2),
        ("something_new", 400, 2),
        ("something_new", 500, 4),
        ("agent_error", 500, 1),
        ("network_refused", 403, 5),
        ("budget", 403, 5),
        ("authentication_error", 0, 3),
        ("billing_error", 0, 5),
        ("spend_limit", 0, 5),
    ],
)
def test_codes_of_the_wire_become_exit_codes(code: str, status: int, exit_code: int) -> None:
    error = WireError(code, "what", "fix", status)
    for seen in (error, error.at()):
        assert seen.exit_code == exit_code
        assert seen.as_dict() == {"code": code, "message": "what", "hint": "fix"}


def test_whatever_a_host_answers_it_could_not_be_asked() -> None:
    answered = WireError("invalid_task", "what", "fix", 400)
    assert isinstance(answered.at(), UsageError)
    assert isinstance(answered.at("farm1"), FarmUnreachable)
    assert str(answered.at("farm1")) == "farm1: what (fix)"
    assert str(WireError("lost", "farm1: gone").at("farm1")) == "farm1: gone"


def test_results() -> None:
    assert from_result({"state": "succeeded", "error": None}) is None
    failed = from_result({"state": "failed", "error": {"code": "timeout", "message": "too long", "hint": "more"}})
    assert failed is not None
    assert (failed.exit_code, failed.code, str(failed)) == (1, "timeout", "too long (more)")
    refused = from_result({"state": "failed", "error": {"code": "network_refused", "message": "no"}})
    assert refused is not None
    assert refused.exit_code == 5
    key = from_result({"state": "failed", "error": {"code": "authentication_error", "message": "no"}})
    assert key is not None
    assert key.exit_code == 3
    cancelled = from_result({"state": "cancelled", "error": None})
    assert cancelled is not None
    assert (cancelled.exit_code, cancelled.code) == (1, "cancelled")
