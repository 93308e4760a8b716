"""The report's page in a real browser: charts, filters, sorting, CSV, keyboard; nothing is fetched."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farmhand.core.money import plain
from farmhand.core.task import Usage
from farmhand.cost.report import CostReport, as_document, report
from farmhand.cost.report_html import page as report_page
from farmhand.cost.rows import FinishedTask
from farmhand.cost.store import ContainerRuns
from farmhand.cost.summary import Basis, document, headline
from tests.support.browser import Page, browser
from tests.unit.cost.ledgers import DAY, NOW, TABLE, charge, fill, temporary_store
from tests.unit.cost.reports import EVIL, EVIL_MODEL, FORMULA, made_up
from tests.unit.cost.test_compare import compared as compared_of
from tests.unit.cost.test_compare import task

REPORT = made_up()
CHARTS = ("spend", "saving", "cost", "latency", "cache", "causes", "batches")
#: Pixels of a chart that are not like its corner: nothing is drawn on a blank one.
DRAWN = """(() => {
  const canvas = document.getElementById("%s-chart");
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return new Set(pixels).size;
})()"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    path.write_text(report_page(as_document(REPORT)), "utf-8")
    return path.as_uri()


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Page]:
    (tmp_path / "browser").mkdir()
    async with browser(tmp_path / "browser") as page:
        yield page


def own(requests: list[str]) -> list[str]:
    """Requests but for what the browser makes of itself (its form controls' icons)."""
    return [address for address in requests if not address.startswith("data:")]


async def tile(tab: Page, name: str) -> str:
    """What stands in a tile."""
    text: str = await tab.run(
        "[...document.querySelectorAll('#tiles div')]"
        f".find((d) => d.firstChild.textContent === {name!r}).lastChild.textContent"
    )
    return text


async def cells(tab: Page, table: str) -> list[list[str]]:
    """The texts of a table's rows."""
    rows = f"[...document.querySelectorAll('#{table}-table tbody tr')]"
    found: list[list[str]] = await tab.run(f"{rows}.map((r) => [...r.cells].map((c) => c.textContent.trim()))")
    return found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
async def test_every_chart_is_drawn_and_nothing_goes_wrong(
    tab: Page, url: str, width: int, dark: bool, tmp_path: Path
) -> None:
    await tab.open(url, width=width, dark=dark)
    for name in CHARTS:
        assert await tab.run(DRAWN % name) > 3, f"{name} is blank"
    assert await tab.run("document.documentElement.scrollWidth") <= width
    ground = await tab.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 22, 28)" if dark else "rgb(246, 247, 249)")
    assert tab.problems == []
    assert own(tab.requests) == [url]
    await tab.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


#: What is cut: text wider than its own box, outside of what scrolls; names beside bars and legends past the edge.
CUT = """(() => {
  const cut = [];
  for (const one of document.querySelectorAll("h1, h2, h3, p, dt, dd, li, label, summary, button, th, td.text")) {
    if (one.checkVisibility() && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
      cut.push(one.textContent);
    const box = one.getBoundingClientRect();
    if (one.checkVisibility() && !one.closest(".scroll, .skip") && box.right > innerWidth) cut.push(one.textContent);
  }
  for (const canvas of document.querySelectorAll("canvas")) {
    const chart = Chart.getChart(canvas);
    for (const scale of chart ? Object.values(chart.scales) : []) {
      const ticks = scale.ticks.map((tick) => tick.label).flat();
      const context = chart.ctx;
      context.font = "12px 'Helvetica Neue', 'Helvetica', 'Arial', sans-serif";
      for (const text of ticks) {
        if (String(text).includes("\u2026")) cut.push(text);
        if (scale.axis === "y" && context.measureText(text).width > scale.width) cut.push(`${canvas.id}: ${text}`);
      }
    }
  }
  return cut;
})()"""
LONG = "letters-to-the-customers-of-november-2026-second-part-of-three"


def small(tasks: int = 3, name: str = LONG) -> CostReport:
    """A first report: a few tasks that cost next to nothing, none of which failed."""
    usage = Usage(input_tokens=13, output_tokens=21)
    rows = [
        charge(no, usage=usage, batch=name, labels={"team": name}, work_class="letters") for no in range(1, tasks + 1)
    ]
    done = [
        FinishedTask(number=row.number, state="succeeded", model=row.model, engine="api", batch=name, labels=row.labels,
                     created_at=NOW - 9, started_at=NOW - 8, finished_at=NOW - 8 + row.number, cost_usd=row.cost_usd,
                     work_class="letters")
        for row in rows
    ]  # fmt: skip
    with temporary_store() as store:
        fill(store, "u1", rows, done)
        return report(store, TABLE, Basis(0, NOW, "claude-sonnet-5-5", {}, {}))


@pytest.mark.parametrize("found", [small(), REPORT], ids=["first", "made up"])
async def test_at_390_pixels_nothing_is_cut(tab: Page, tmp_path: Path, found: CostReport) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_page(as_document(found)), "utf-8")
    await tab.open(path.as_uri(), width=390)
    assert await tab.run(CUT) == []
    assert await tab.run("document.documentElement.scrollWidth") <= 390
    # The tables that are open fit as they are: nobody has to find out that they scroll.
    for table in ("levers", "groups"):
        room = f"document.getElementById('{table}-table').parentElement"
        assert await tab.run(f"{room}.scrollWidth <= {room}.clientWidth"), table
    assert tab.problems == []


async def test_a_first_report_has_no_exponent_no_half_task_and_no_empty_chart(tab: Page, tmp_path: Path) -> None:
    found = small()
    path = tmp_path / "report.html"
    path.write_text(report_page(as_document(found)), "utf-8")
    await tab.open(path.as_uri())
    labels = await tab.run(
        "[...document.querySelectorAll('canvas')].flatMap((c) => Object.values(Chart.getChart(c)?.scales ?? {})"
        ".filter((s) => s.type === 'linear').flatMap((s) => s.ticks.map((t) => [c.id, t.label])))"
    )
    assert {name for name, _ in labels} == {f"{name}-chart" for name in CHARTS if name != "causes"}
    assert all(re.fullmatch(r"-?[\d,]+(\.\d+)?", label) for _, label in labels), labels
    assert all("." not in label for name, label in labels if name in ("cost-chart", "latency-chart", "cache-chart"))
    assert await tab.run("document.querySelector('#causes figure').hidden")
    assert "No task failed" in await tab.run("document.getElementById('causes').innerText")
    # One number, then what it would have been; exact below. The legends name what was used.
    first = await tab.run("['spent', 'said'].map((name) => document.getElementById(name).textContent)")
    head = headline(found.figures)
    assert first == ["US$ 0.0000354", f"for 3 tasks. {head['said']}"]
    assert await tab.run("[...document.querySelectorAll('#cache .legend li, #spend .legend li')].length") == 0
    legend = await tab.run(
        "[...document.querySelectorAll('#saving .legend li')].map((one) => one.textContent.slice(1))"
    )
    assert legend == ["claude-sonnet-5-5", "claude-haiku-5-5"]
    order = await tab.run("[...document.querySelectorAll('#sections > section')].map((one) => one.id)")
    assert order == ["spend", "saving", "levers", "groups", "cost", "latency", "cache", "causes", "batches"]
    assert "half ran within 2 s, 95 % within 3 s" in await tab.run("document.getElementById('latency').innerText")
    groups = await cells(tab, "groups")
    assert [row[:2] for row in groups if row[0] != "label"] == [
        ["work class", "letters"], ["engine", "api"], ["place", "farm"],
    ]  # fmt: skip
    assert ["label", f"team={LONG}", "0.0000354", "3", "0"] in groups
    assert tab.problems == []


async def test_failures_are_the_causes_and_amounts_stand_under_one_another(tab: Page, url: str) -> None:
    await tab.open(url)
    failed = sum(int(row[1]) for row in await cells(tab, "causes"))
    assert str(failed) == await tile(tab, "Failed") == "3"
    texts = await tab.run("[...document.querySelectorAll('#levers-table tbody tr')].map((r) => r.cells[1].textContent)")
    assert len({len(text) - text.index(".") for text in texts}) == 1
    edges = await tab.run(
        "[...document.querySelectorAll('#levers-table tbody tr')].map((r) => { const range = document.createRange();"
        " const text = r.cells[1].firstChild; range.setStart(text, text.data.indexOf('.')); range.setEnd(text,"
        " text.data.indexOf('.') + 1); return Math.round(range.getBoundingClientRect().left); })"
    )
    assert max(edges) - min(edges) <= 1


async def test_what_the_charts_draw_is_what_the_report_says(tab: Page, url: str) -> None:
    await tab.open(url)
    drawn = await tab.run(
        "Chart.getChart('spend-chart').data.datasets.flatMap((d) => d.data).reduce((a, b) => a + b, 0)"
    )
    assert drawn == pytest.approx(REPORT.figures.whole.spent_pico / 1e12)
    assert await tile(tab, "Spent, US$") == plain(REPORT.figures.whole.spent_pico)
    assert await tile(tab, "Tasks") == "24"
    last = await tab.run("Chart.getChart('saving-chart').data.datasets.map((d) => d.data.at(-1))")
    sums = [0.0] * len(REPORT.baselines)
    for row in REPORT.saved:
        sums[row.baseline] += (row.baseline_pico - row.spent_pico) / 1e12
    assert last == pytest.approx(sums)


async def test_fargate_and_the_comparison_are_on_the_page(tab: Page, tmp_path: Path) -> None:
    basis = Basis(0, NOW, "claude-sonnet-5-5", {}, {})
    with temporary_store() as store:
        fill(store, "u1", [charge()], [task(1)])
        runs = [ContainerRuns(NOW - DAY, NOW, 2, 120, 3_000_000_000_001), ContainerRuns(0.0, 0.0, 1, 0, None)]
        store.ran("s3://b/k", "aws-prod", "b1", runs, settled=True)
        found, compared = report(store, TABLE, basis), compared_of(store)
    path = tmp_path / "report.html"
    path.write_text(report_page(as_document(found, document(compared))), "utf-8")
    await tab.open(path.as_uri())
    assert await tile(tab, "Fargate besides, US$") == "3.000000000001"
    ways = await tab.run(
        "[...document.querySelectorAll('#ways-table tbody tr')].map((r) => r.cells[4].textContent.trim())"
    )
    assert ways == [plain(way.total_pico or 0) for way in compared.ways]
    facts = await tab.run("document.getElementById('facts').textContent")
    for words in (
        "Fargate: US$ 3.000000000001 for 2 containers on AWS",
        f"{compared.verdicts[0].claim}: not true. ",
        "The time of 1 container on AWS is not known any more",
        "Prices of AWS, us-east-1: 2026-06-30",
    ):
        assert words in facts, words
    assert tab.problems == []


async def test_filters_filter_all_of_it(tab: Page, url: str) -> None:
    await tab.open(url)

    async def choose(name: str, value: str) -> None:
        script = f"{{const x = document.getElementById('{name}'); x.value = {value!r};"
        await tab.run(script + " x.dispatchEvent(new Event('change', {bubbles: true}));}")

    model = REPORT.models.index("claude-opus-5-5")
    await choose("model", str(model))
    wanted = [cell for cell in REPORT.cells if cell.model == model]
    assert await tile(tab, "Tasks") == str(sum(cell.tasks for cell in wanted)) == "8"
    assert await tile(tab, "Spent, US$") == plain(sum(cell.spent_pico for cell in wanted))
    assert await tab.run("Chart.getChart('batches-chart').data.labels.map((l) => l.join(''))") == [EVIL]
    causes = await tab.run("[...document.querySelectorAll('#causes-table tbody tr')].map((r) => r.textContent)")
    assert sorted(causes) == ["succeeded in the end01", "timeout10"]

    await choose("host", str(REPORT.hosts.index("farm1")))
    assert await tile(tab, "Tasks") == "0"

    await tab.run("document.getElementById('reset').click()")
    await tab.run("new Promise((done) => setTimeout(done))")
    assert await tile(tab, "Tasks") == "24"
    await choose("from", "2026-11-23")
    assert await tab.run("Chart.getChart('spend-chart').data.labels") == ["2026-11-23", "2026-11-24"]
    assert await tile(tab, "Tasks") == str(sum(cell.tasks for cell in REPORT.cells if cell.day >= REPORT.last - 1))
    await choose("to", "2026-11-23")
    assert await tab.run("Chart.getChart('cache-chart').data.labels") == ["2026-11-23"]
    assert (await tab.run("document.getElementById('summary').textContent")).startswith("2026-11-23 to 2026-11-23")
    await choose("to", "2026-11-22")
    assert await tile(tab, "Tasks") == "0"
    assert tab.problems == []


async def test_tables_sort_by_keyboard_and_say_so(tab: Page, url: str) -> None:
    await tab.open(url)
    column = "[...document.querySelectorAll('#batches-table tbody tr')].map((r) => r.firstChild.textContent)"
    state = "[...document.querySelectorAll('#batches-table th')].map((h) => h.getAttribute('aria-sort'))"
    await tab.run("document.getElementById('batches-data').open = true")
    await tab.run("document.querySelector('#batches-table th button').focus()")
    dearest = await tab.run(column)
    assert dearest[0] == EVIL
    await tab.press("Enter")
    assert (await tab.run(state))[0] == "ascending"
    ascending = await tab.run(column)
    assert set(ascending) == {EVIL, FORMULA, "nightly"}
    await tab.press("Enter")
    assert (await tab.run(state))[0] == "descending"
    assert await tab.run(column) == ascending[::-1]
    # The second column is money: by its amount.
    await tab.press("Tab")
    await tab.press(" ")
    assert (await tab.run(state))[:2] == ["none", "descending"]
    assert await tab.run(column) == dearest
    assert tab.problems == []


async def test_the_csv_has_the_exact_figures_and_no_formula(tab: Page, url: str) -> None:
    await tab.open(url)
    content = await tab.downloaded("document.getElementById('batches-csv').click()")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    # What has no known price is not US$ 0.00: its requests stand beside it.
    assert rows[0] == ["batch", "US$", "no price", "requests", "tasks", "failed"]
    spent = {
        name: sum(row.spent_pico for row in REPORT.by_batch if REPORT.batches[row.batch] == name)
        for name in REPORT.batches
    }
    assert {row[0]: row[1:] for row in rows[1:]} == {
        (f"'{name}" if name == FORMULA else name): [plain(pico), "8" if name == FORMULA else "0", "8", "8", "1"]
        for name, pico in spent.items()
    }
    levers = await tab.downloaded("document.getElementById('levers-csv').click()")
    saved = [line.split(",")[1] for line in levers.decode().splitlines()[1:]]
    assert saved == [plain(lever.saving_pico) for lever in REPORT.figures.savings.levers]


async def test_names_are_text_and_markup_in_them_never_runs(tab: Page, url: str) -> None:
    await tab.open(url)
    assert await tab.run("document.querySelectorAll('img, b, iframe').length") == 0
    options = await tab.run("[...document.querySelectorAll('#model option')].map((o) => o.textContent)")
    assert EVIL_MODEL in options
    assert "farm<b>3" in await tab.run("document.getElementById('host').textContent")
    assert EVIL in await tab.run("document.getElementById('facts').textContent")
    # Were markup ever let in, the policy would not let it run or fetch.
    await tab.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x onerror=window.ran=1>')"
    )
    await tab.run("new Promise((done) => setTimeout(done, 50))")
    assert await tab.run("window.ran === undefined")
    assert any("Content Security Policy" in problem for problem in tab.problems)


async def test_everything_has_a_name_and_can_be_reached_by_keyboard(tab: Page, url: str) -> None:
    await tab.open(url)
    tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
    roles = ("combobox", "button", "image", "table", "region", "textbox", "Date", "DisclosureTriangle", "link")
    unnamed = [
        node["role"]["value"]
        for node in tree
        if not node["ignored"] and node.get("role", {}).get("value") in roles and not node["name"].get("value")
    ]
    assert unnamed == []
    images = {node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "image"}
    assert len(images) == len(CHARTS)
    folds = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "DisclosureTriangle"]
    assert len(set(folds)) == len(CHARTS)
    assert all(re.search(r"\d+ points in .*The data table below", name) for name in images)
    reached = set()
    for _ in range(60):
        await tab.press("Tab")
        reached.add(await tab.run("document.activeElement.id || document.activeElement.textContent.slice(0, 20)"))
    assert {"model", "host", "from", "to", "reset", "Data table", "levers-csv"} <= reached
    assert await tab.run("document.documentElement.lang") == "en"
