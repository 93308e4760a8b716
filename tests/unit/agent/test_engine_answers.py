"""Checking an answer against its schema, where the schema means harm."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from farmhand.agent.engines import EngineError
from farmhand.agent.engines.answers import check_answer


def test_a_schema_fetches_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        with pytest.raises(EngineError) as error:
            check_answer({"$ref": f"http://127.0.0.1:{port}/schema"}, "x")
        assert error.value.code == "invalid_schema"
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("schema", [{"$ref": "file:///etc/hostname"}, {"$ref": "#"}, {"$ref": "#/$defs/none"}])
def test_a_schema_that_leads_nowhere_is_an_error_of_its_own(schema: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as error:
        check_answer(schema, "x")
    assert error.value.code == "invalid_schema"


def test_references_inside_the_schema_work() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    assert check_answer(schema, 3) == 3
