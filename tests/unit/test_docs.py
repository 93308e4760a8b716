"""What the docs point at is there: the tests of docs/security.md, the files that the Markdown links to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def _named_tests() -> list[tuple[str, str]]:
    """(file, test) of docs/security.md; `…::test` is in the file named before it, a file alone has the test ""."""
    found: list[tuple[str, str]] = []
    for name, test in re.findall(r"`([\w./…]+?\.py|…)(?:::(\w+))?`", (ROOT / "docs/security.md").read_text("utf-8")):
        found.append((found[-1][0] if name == "…" else name, test))
    return [x for x in found if x[0] != "tests/conftest.py"]


@pytest.mark.parametrize(("name", "test"), _named_tests())
def test_security_names_a_test_that_exists(name: str, test: str) -> None:
    path = ROOT / (name if name.startswith("molecule/") else f"tests/{name}")
    assert path.exists(), name
    if test:
        assert re.search(rf"^(async )?def {test}\(", path.read_text("utf-8"), re.MULTILINE), f"{name} has no {test}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_a_heading_lead_to_one(document: Path) -> None:
    for name, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", document.read_text("utf-8")):
        target = document.parent / name if name else document
        assert anchor in _anchors(target), f"{document.name} links to {name}#{anchor}"


#: Of Debian's essential packages (and the shell's own), and of systemd, without which site.yml refuses a host.
ON_EVERY_HOST = {
    *("cat", "cd", "chown", "cp", "echo", "grep", "id", "install", "ls", "mv", "python3", "rm", "runuser", "sed", "sh"),
    *("hostnamectl", "journalctl", "loginctl", "systemctl", "timedatectl"),
}


def _host_commands(text: str) -> list[str]:
    """The programs, each with its first argument, of what a document says to run on a farm host."""
    lines = re.findall(r"`([^`]+)` on the (?:farm )?host\b", text)
    lines += re.findall(r"-m (?:ansible\.builtin\.)?(?:shell|command) -a \"([^\"]+)\"", text)
    lines += re.findall(r"^ {3,}(?:sudo )?(jada-agent .*)$", text, re.MULTILINE)
    found = []
    for line in lines:
        quoted = re.sub(r"'[^']*'", "''", line)
        for part in re.split(r"&&|\|\||[|;]", quoted):
            words = [word for word in part.split() if "=" not in word.split("/")[0]]
            found.append(" ".join(words[:2]))
    return found


def test_commands_for_a_host_need_only_what_it_has() -> None:
    roles = "\n".join(path.read_text("utf-8") for path in (ROOT / "roles").glob("*/defaults/main.yml"))
    agent = (ROOT / "src/farmhand/agent/main.py").read_text("utf-8")
    verbs = set(re.findall(r'\bverb\("([\w-]+)"', agent))
    seen = 0
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        installed = set(re.findall(r"-m apt -a \"name=([\w-]+)\"", text))
        for command in _host_commands(text):
            seen += 1
            program, _, verb = command.partition(" ")
            if program in ("jada-agent", "claude"):
                assert program == "claude" or verb in verbs, f"{document.name}: jada-agent has no {verb}"
                continue
            known = program in ON_EVERY_HOST | installed or re.search(rf"^ *- {re.escape(program)}$", roles, re.M)
            assert known, f"{document.name}: a farm host has no {program} ({command})"
    assert seen > 5
    assert _host_commands("`curl -sf http://agent` on the host") == ["curl -sf"]
