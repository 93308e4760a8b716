"""The names of attributes: those of the conventions, in one file, and in the documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes

from farmhand.telemetry import names

ROOT = Path(__file__).resolve().parents[3]


def test_the_gen_ai_names_are_those_of_the_conventions() -> None:
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    assert {name for name in names.ABOUT if name.startswith("gen_ai.")} - known == set()
    assert error_attributes.ERROR_TYPE == names.ERROR
    assert gen_ai_attributes.GenAiOperationNameValues.CHAT.value == names.CHAT
    assert gen_ai_attributes.GenAiProviderNameValues.ANTHROPIC.value == "anthropic"
    assert "gen_ai.prompt" not in names.ABOUT
    assert "gen_ai.input.messages" not in names.ABOUT


def test_no_other_file_has_such_a_name() -> None:
    for path in (ROOT / "src" / "farmhand").rglob("*.py"):
        found = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        named = {one for one in found if isinstance(one, str) and re.fullmatch(r"gen_ai\.[a-z_.]+|error\.type", one)}
        assert not named or path.name == "names.py", (path, named)


def test_the_documentation_has_the_table() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text().partition("| attribute | what it is |")[2]
    assert re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", text, re.MULTILINE) == list(names.ABOUT.items())
