"""The provider's price page: read in the forms that it has had, refused where anything is not clear."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farmhand.cli.prices.check import command
from farmhand.core.prices import price_table
from farmhand.cost.price_page import FIGURES, PageNotUnderstood, compare_page, read_page
from tests.support.schemas import check

DAY = date(2026, 11, 30)
#: Name on the page → input, 5m writes, 1h writes, hits, output; as on 2026-11-28.
ROWS = {
    "Claude Fable 5.2": "8 10 16 0.20 40",
    "Claude Fable 5.1": "10 12.50 20 0.25 50",
    "Claude Fable 5": "10 12.50 20 1 50",
    "Claude Opus 5.5": "4 5 8 0.20 20",
    "Claude Opus 5": "5 6.25 10 0.50 25",
    "Claude Opus 4.5": "5 6.25 10 0.50 25",
    "Claude Sonnet 5.5": "2 2.50 4 0.10 10",
    "Claude Haiku 5.5 (for prompts up to 100,000 tokens)": "0.10 0.125 0.20 0.01 0.50",
    "Claude Haiku 5.5 (for prompts over 100,000 tokens)": "0.50 0.625 1 0.05 2.50",
    "Claude Haiku 4.5": "1 1.25 2 0.10 5",
    "Claude Mythos 5.1 ([limited availability](https://example.com))": "10 12.50 20 0.25 50",
    "Claude Opus 4.1 ([retired, except on Bedrock](https://example.com))": "15 18.75 30 1.50 75",
}
HEAD = "| Model | Base input tokens | 5m cache writes | 1h cache writes | Cache hits and refreshes | Output tokens |"


def markdown(rows: dict[str, str] = ROWS) -> str:
    """The page as text."""
    lines = ["# Pricing", "## Model pricing", HEAD, "|---|:--|---|---|---|---|"]
    for name, prices in rows.items():
        notes = ["<sup>1</sup>" if name == "Claude Fable 5.1" else "", "1" if name == "Claude Opus 5.5" else ""]
        lines.append(f"| {name} | " + " | ".join(f"${price} / MTok{''.join(notes)}" for price in prices.split()) + " |")
    lines += ["", "### Batch processing", "| Model | Batch input | Batch output |", "| --- | --- | --- |"]
    for name, prices in rows.items():
        given = prices.split()
        lines.append(f"| {name} | ${float(given[0]) / 2:g} / MTok | ${float(given[4]) / 2:g} / MTok |")
    lines += ["", "### Fast mode", "| Model | Input | Output |", "|---|---|---|", "| Claude Opus 5.5 | $8 | $40 |"]
    return "\n".join(lines)


def html(change: tuple[str, str] = ("", "")) -> str:
    """The page as redesigned: two rows of heads, a line below each name, a divider, a cell that spans two rows."""

    def cell(price: str, note: str = "") -> str:
        return f"<td><div>${price}<!-- --> <span>/ MTok<sup>2</sup></span><span>{note}</span></div></td>"

    def name(text: str, rows: int = 1) -> str:
        return f'<td rowSpan="{rows}"><div><a href="x">{text}</a><span>For agents &amp; work</span></div></td>'

    def line(text: str, figures: list[int]) -> str:
        prices = ROWS[text].split()
        return f"<tr>{name(text)}{''.join(cell(prices[n]) for n in figures)}</tr>"

    def body(figures: list[int], divide: float) -> str:
        def half(price: str) -> str:
            return f"{float(price) / divide:g}"

        low, high = (
            ROWS[f"Claude Haiku 5.5 (for prompts {which} 100,000 tokens)"].split() for which in ("up to", "over")
        )
        notes = ["for prompts up to 100,000 tokens", "for prompts over 100,000 tokens"]
        rows = [name("Claude Haiku 5.5", 2) + "".join(cell(half(low[n]), notes[0]) for n in figures)]
        rows.append("".join(cell(half(high[n]), notes[1] if n == 0 else "") for n in figures))
        for text in (
            "Claude Opus 5.5",
            "Claude Sonnet 5.5",
            "Claude Fable 5.1",
            "Claude Fable 5.2",
            "Claude Haiku 4.5",
        ):
            prices = ROWS[text].split()
            rows.append(name(text) + "".join(cell(half(prices[n])) for n in figures))
        divider = f'<tr><th scope="rowgroup" colSpan="{len(figures) + 1}"><button>Additional models</button></th></tr>'
        return "".join(f"<tr>{row}</tr>" for row in rows[:4]) + divider + "".join(f"<tr>{row}</tr>" for row in rows[4:])

    page = (
        "<script>let t = '<table>';</script>"
        '<table><thead><tr><th>Model</th><th colSpan="2">Base tokens</th><th colSpan="3">Prompt caching</th></tr>'
        "<tr><th>Name</th><th>Input</th><th>Output</th><th><button>5m writes</button></th><th>1h writes</th>"
        f"<th>Hits and refreshes</th></tr></thead><tbody>{body([0, 4, 1, 2, 3], 1)}</tbody></table>"
        '<table><thead><tr><th>Model</th><th colSpan="2">Batch tokens</th></tr><tr><th>Name</th><th>Input</th>'
        f"<th>Output</th></tr></thead><tbody>{body([0, 4], 2)}</tbody></table>"
        "<table><tr><th>Model</th><th>Input</th><th>Output</th></tr>"
        "<tr><td>Claude Opus 5.5</td><td>$8</td><td>$40</td></tr></table>"
    )
    assert change[0] in page
    return page.replace(*change) if change[0] else page


def differences(page: str, day: date = DAY) -> list[tuple[str, str, str | None, str | None]]:
    found = compare_page(read_page(page, day), price_table(), "x", day)
    return [(one.model, one.figure, one.ours, one.page) for one in found.differences]


@pytest.mark.parametrize("page", [markdown(), html()])
def test_a_page_with_the_prices_of_the_table_has_no_difference(page: str) -> None:
    assert differences(page) == []
    assert {name: set(found.figures) >= {*FIGURES, "batch.input"} for name, found in read_page(page, DAY).items()}


def test_every_figure_that_differs_is_named(tmp_path: Path) -> None:
    rows = ROWS | {
        "Claude Opus 5.5": "4 5 8 0.20 25",
        "Claude Haiku 5.5 (for prompts over 100,000 tokens)": "0.50 0.625 1 0.06 2.50",
        "Claude Opus 6": "4 5 8 0.20 20",
    }
    del rows["Claude Haiku 4.5"]
    assert differences(markdown(rows)) == [
        ("claude-haiku-5-5", "long.cache_read", "0.05", "0.06"),
        ("claude-opus-5-5", "batch.output", "10", "12.5"),
        ("claude-opus-5-5", "output", "20", "25"),
        ("claude-opus-6", "", None, "a new model"),
        ("claude-haiku-4-5-20251001", "", "in the table", None),
    ]
    moved = markdown().replace("100,000 tokens)", "200,000 tokens)")
    assert ("claude-haiku-5-5", "long.over", "100000", "200000") in differences(moved)
    one = {"Claude Haiku 5.5": ROWS["Claude Haiku 5.5 (for prompts up to 100,000 tokens)"]}
    dropped = markdown({name: prices for name, prices in ROWS.items() if "Haiku 5.5" not in name} | one)
    assert ("claude-haiku-5-5", "long.input", "0.5", None) in differences(dropped)
    assert differences(html(("$0.625", "$0.626"))) == [("claude-haiku-5-5", "long.cache_write", "0.625", "0.626")]


def test_a_row_holds_in_its_time_alone() -> None:
    rows = {name: prices for name, prices in ROWS.items() if name != "Claude Sonnet 5.5"}
    rows["Claude Sonnet 5.5 through December 31, 2026"] = ROWS["Claude Sonnet 5.5"]
    rows["Claude Sonnet 5.5 starting January 1, 2027"] = "3 3.75 6 0.30 15"
    assert differences(markdown(rows)) == []
    assert ("claude-sonnet-5-5", "input", "2", "3") in differences(markdown(rows), date(2027, 1, 1))


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("", "no table"),
        ("<html><body>One moment, please…</body></html>", "no table"),
        ("<table><tr><th>Model</th></tr></table>", "no table"),
        (HEAD, "no table"),
        (f"{HEAD}\n|---|---|---|---|---|---|", "no model"),
        (markdown().replace("Base input tokens", "Price"), "no table"),
        (markdown({name: prices for name, prices in ROWS.items() if "over 100,000" not in name}), "all of its prices"),
        (markdown().replace("$4 / MTok", "$4 / KTok"), r"claude-opus-5-5: input is no price: '\$4 / KTok1'"),
        (markdown().replace("$4 / MTok", "from $4 / MTok"), "input is no price"),
        (markdown().replace("$4 / MTok", "€4 / MTok"), "input is no price"),
        (markdown().replace("Claude Opus 5.5", "Opus 5.5", 1), "a row is not of a model"),
        (markdown().replace("| Claude Opus 5 |", "| Claude Opus 5.5 |", 1), "two prices of"),
        (markdown().replace("prompts over 100,000", "long prompts above 100k"), "two prices|which prompts"),
        (markdown().replace("Claude Sonnet 5.5", "Claude Sonnet 5.5 since 2026-10-07", 1), "from when"),
        (markdown().replace("Claude Sonnet 5.5", "Claude Sonnet 5.5 until Brumaire 3, 2026", 1), "is no day"),
        (markdown().replace("| Claude Opus 5 | $5 / MTok |", "| Claude Opus 5 |", 1), "a row is not of a model"),
        (html(("for prompts over 100,000 tokens", "for larger prompts")), "which prompts|two prices"),
    ],
)
def test_what_is_not_understood_is_never_a_page_without_differences(page: str, why: str) -> None:
    with pytest.raises(PageNotUnderstood, match=why):
        read_page(page, DAY)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if done.exception is not None:
        return getattr(done.exception, "exit_code", 99), str(done.exception)
    return int(done.return_value), done.output if "--json" in arguments else " ".join(done.output.split())


def test_the_verb_prints_a_dated_diff_and_its_status_says_it(tmp_path: Path) -> None:
    page, before = tmp_path / "pricing.md", price_table()
    page.write_text(markdown())
    status, said = run(str(page))
    assert (status, "no difference in 11 models" in said) == (0, True), said
    assert "claude-mythos-5-1, claude-opus-4-1" in said
    page.write_text(markdown(ROWS | {"Claude Opus 5.5": "5 5 8 0.20 20"}))
    status, said = run(str(page))
    assert status == 1
    assert f"against the price table of {before.version}" in said
    assert "claude-opus-5-5" in said
    status, said = run(str(page), "--json")
    shown: dict[str, Any] = json.loads(said)
    check("prices-check", shown)
    assert (status, shown["ok"], shown["table"]) == (1, False, before.version)
    assert shown["differences"][1] == {"model": "claude-opus-5-5", "figure": "input", "ours": "4", "page": "5"}
    price_table.cache_clear()
    assert price_table().version == before.version
    page.write_text(markdown().partition("### Batch")[0])
    assert "half price was not looked at" in run(str(page))[1]


def test_a_page_that_cannot_be_had_is_nobody_s_green(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>captcha</html>")
    assert run(str(page))[0] == 4
    assert run("--url", "http://127.0.0.1:1/pricing")[0] == 4
    for url in ("http://example.com/pricing", "file:///etc/passwd", "ftp://example.com", "https://", "http://[::1"):
        assert run("--url", url)[0] == 2, url
    assert run(str(page), "--url", "https://example.com")[0] == 2
    assert run(str(tmp_path / "none.html"))[0] == 2
    page.write_bytes(b"\xff\xfe")
    assert run(str(page))[0] == 2


def test_cache_writes_are_by_the_providers_rule_in_every_row() -> None:
    """1.25 and 2 times the input: a figure of another model's row would break it (BerriAI/litellm#38056)."""
    for model, spans in price_table().spans.items():
        for row in (figures for span in spans for figures in (span.row, span.row.long_prompt) if figures is not None):
            assert (row.cache_write, row.cache_write_1h) == (row.input * Decimal("1.25"), row.input * 2), model
