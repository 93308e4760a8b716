"""The real claude CLI in a real shell: what its init event says of its credential, and what the API received."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.claude import claude_binary
from tests.support.messages_api import MessagesApi
from tests.support.shells import Home, at_once

_ASK = (
    "claude -p --output-format stream-json --verbose --no-session-persistence --tools '' --model haiku '{}' </dev/null"
)
_CREDENTIALS = ("authorization", "x-api-key")
#: Variables of a shell that say how deep it is and what ran before: the CLI decides nothing by them.
_NOT_COMPARED = (b"SHLVL=", b"OLDPWD=", b"_=")


@dataclass(frozen=True)
class Said:
    """`headers`: the credentials' headers of its request, in order, with the values; `path`: where it went."""

    api_key_source: str
    path: str
    headers: dict[str, str]


def install(home: Home) -> None:
    """Let `claude` be the real CLI in this home."""
    target = home.path / "bin/claude"
    target.unlink(missing_ok=True)
    target.symlink_to(claude_binary())


async def ask_each(home: Home, api: MessagesApi, kinds: Sequence[tuple[str, str]]) -> list[Said]:
    """The same for several kinds of shell. Each is started; the CLI is, once for all that it gets the same from."""
    with _printing_its_environment(home):
        got = await at_once([home.run(shell, mode, "claude") for shell, mode in kinds])
    given = [frozenset(one for one in out.split(b"\0") if not one.startswith(_NOT_COMPARED)) for out in got]
    first = dict(zip(reversed(given), reversed(kinds), strict=True))
    said = dict(zip(first, await at_once([ask(home, api, *kind) for kind in first.values()]), strict=True))
    return [said[each] for each in given]


@contextmanager
def _printing_its_environment(home: Home) -> Iterator[None]:
    """Let `claude` print all that it gets, meanwhile."""
    program = home.path / "bin/claude"
    real = program.rename(program.with_name("claude-real"))
    program.write_text("#!/bin/sh\nexec /usr/bin/env -0\n")
    program.chmod(0o755)
    yield
    real.replace(program)


async def ask(home: Home, api: MessagesApi, shell: str, mode: str, environment: dict[str, str] | None = None) -> Said:
    """Type `claude -p` in a shell of this kind. `environment` is added after its start-up files."""
    prelude = {
        "ANTHROPIC_BASE_URL": api.url,
        "ANTHROPIC_BEDROCK_BASE_URL": api.url,
        "AWS_BEARER_TOKEN_BEDROCK": "loopback-bearer",
        "AWS_REGION": "us-east-1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        **(environment or {}),
    }
    mark = f"which-{shell}-{mode.replace(' ', '-')}-{len(api.log)}"
    out = await home.run(shell, mode, _ASK.format(mark), prelude)
    events = [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]
    source = next(str(event["apiKeySource"]) for event in events if event.get("subtype") == "init")
    asked = [entry for entry in api.log if entry.method == "POST" and mark in entry.body]
    if not asked:
        return Said(source, "", {})
    headers = {name.lower(): value for name, value in asked[0].headers.items()}
    return Said(source, asked[0].path, {name: headers[name] for name in _CREDENTIALS if name in headers})
