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
