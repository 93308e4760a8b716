"""The directories that a client names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farmhand.mcp_server.server import ClientSession


class Client:
    """A client that answers roots/list."""

    client_capabilities = SimpleNamespace(roots=object())
    can_send_request = True

    def __init__(self, roots: Any) -> None:
        self._roots = roots

    async def send_request(self, _: Any, kind: Any) -> Any:
        return kind.model_validate({"roots": self._roots})


@pytest.mark.parametrize(
    ("roots", "paths"),
    [
        ([{"uri": "file:///work/Two%20words/%C3%BC"}], ["/work/Two words/ü"]),
        (
            [{"uri": "vscode-vfs://github/me/shop"}, {"uri": "file:///work"}, {"uri": "file:///gone"}],
            ["/work", "/gone"],
        ),
        ([{"uri": "https://example.com"}], ["."]),
        ([{"name": "no uri"}, {"uri": 5}], ["."]),
        ([], ["."]),
        ("none", ["."]),
    ],
)
async def test_roots_that_are_no_files_leave_the_others_in(roots: Any, paths: list[str]) -> None:
    context: Any = SimpleNamespace(session=Client(roots))
    assert await ClientSession(context).roots() == [Path(path).absolute() for path in paths]
