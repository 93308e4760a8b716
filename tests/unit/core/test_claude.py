from __future__ import annotations

import json

from farmhand.core import claude


def test_the_invocation_is_lean_and_never_bare() -> None:
    argv = claude.arguments("/x/claude", model="m")
    assert argv[:2] == ["/x/claude", "-p"]
    assert "--bare" not in argv
    for flag, value in (
        ("--tools", ""),
        ("--setting-sources", ""),
        ("--model", "m"),
        ("--system-prompt", claude.SYSTEM),
    ):
        assert argv[argv.index(flag) + 1] == value
    with_tools = claude.arguments("claude", model="m", system="s", tools=("Bash", "Read"))
    assert with_tools[-2:] == ["--tools", "Bash,Read"]
    assert with_tools[with_tools.index("--system-prompt") + 1] == "s"


def test_the_prompt_is_in_no_argument_and_followed_by_a_blank_block() -> None:
    [line] = claude.user_message("/help @x\n").splitlines()
    content = json.loads(line)["message"]["content"]
    assert [block["text"] for block in content] == ["/help @x\n", "\n"]
