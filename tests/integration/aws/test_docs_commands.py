"""The commands of docs/aws.md about credentials, read from the page and run in its order over the double."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from pathlib import Path

from tests.integration.aws.test_module import CHECKOUT, environment
from tests.support.messages_api import MessagesApi
from tests.unit.aws.conftest import ENVIRONMENT, private
from tests.unit.aws.test_vault import value

KEY = "sk-ant-test-of-the-page-0123456789"


def lines() -> list[list[str]]:
    text = (CHECKOUT / "docs/aws.md").read_text("utf-8")
    [block] = [code for code in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "credential put" in code]
    return [shlex.split(re.sub(r"\s+# .*", "", line)) for line in block.splitlines()]


async def test_the_commands_of_the_credentials_page_work_in_their_order(station: Path, api: MessagesApi) -> None:
    api.state.keys = frozenset({KEY, f"{KEY}-2"})
    private(station / "repos.env", f"ANTHROPIC_API_KEY={KEY}\n")
    private(station / "tokens.env", "GIT_TOKEN=ghp_0123456789abcdef\n")
    private(station / "new.env", f"KEY={KEY}-2\n")
    later = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 90 * 86400))
    asked = lines()
    assert len(asked) == 7
    for words in asked:
        if "rotate" in words:
            # Whoever has no Admin key disables the old key in the provider's console, and has the new one here as well.
            api.state.keys = frozenset({f"{KEY}-2"})
            private(station / "repos.env", f"ANTHROPIC_API_KEY={KEY}-2\n")
        process = await asyncio.create_subprocess_exec(
            *(re.sub(r"^\d{4}-\d\d-\d\d$", later, word) for word in words),
            env=environment(station, api),
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, f"{shlex.join(words)}: {out.decode()}"
        assert KEY not in out.decode()
    assert value(f"farmhand/{ENVIRONMENT}/key") == f"{KEY}-2"
