from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from farmhand.batch.coordinator import Coordinator
from farmhand.batch.estimate import BatchEstimate, PlannedPrice
from farmhand.cli import batch, batch_price, code
from farmhand.cli.batch import defaults
from farmhand.cli.batch_progress import ProgressDisplay
from farmhand.cli.batch_summary import summary, why_failed
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.settings import Settings

NOTHING: dict[str, Any] = dict.fromkeys(
    ("system", "schema", "engine", "network", "max_tokens", "work_class", "priority"), None
) | {"tools": (), "labels": (), "economy": False}
STANDING = {"total": 10, "succeeded": 4, "failed": 1, "cancelled": 0, "cost_usd": 0.25, "finished_now": 5}


def made(conf: Settings | None = None, **given: Any) -> dict[str, Any]:
    """The defaults of a batch that is given these options."""
    return defaults(conf or Settings(), NOTHING | given)


def test_only_what_was_asked_for_becomes_a_default() -> None:
    assert made() == {}
    given = {"labels": ("a=b=c",), "tools": ("Bash, Read",), "priority": 2, "schema": "{}", "work_class": "w"}
    assert made(Settings(model="opus", timeout_s=5.0), economy=True, **given) == {
        "labels": {"a": "b=c"},
        "tools": ["Bash", "Read"],
        "priority": 2,
        "economy": True,
        "work_class": "w",
        "model": "opus",
        "timeout_s": 5.0,
    }
    with pytest.raises(UsageError, match="NAME=VALUE"):
        made(labels=("x",))


@pytest.mark.parametrize(
    ("given", "name"),
    [({"system": "\udcff"}, "--system"), ({"labels": ("a=\udcff",)}, "--label"), ({"tools": ("\udcff",)}, "--tools")],
)
def test_an_option_that_is_not_utf_8_is_named(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is not valid UTF-8"):
        made(**given)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"labels": ("a=sk-ant-test-pasted-0000",)}, "--label"),
        ({"labels": ("sk-ant-test-pasted-0000=a",)}, "--label"),
        ({"work_class": "sk-ant-test-pasted-0000"}, "--work-class"),
        ({"tools": ("sk-ant-test-pasted-0000",)}, "--tools"),
    ],
)
def test_a_key_is_no_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^an API key stands in {name}"):
        made(**given)
    with pytest.raises(UsageError, match=r"^an API key stands in --model"):
        made(Settings(model="sk-ant-test-pasted-0000"))


@pytest.mark.parametrize(
    "line",
    [
        {"id": "sk-ant-test-pasted-0000"},
        {"id": "sk-ant-test-pasted-0000 x"},
        {"model": "sk-ant-test-pasted-0000"},
        {"labels": {"a": "sk-ant-test-pasted-0000"}},
    ],
)
def test_a_key_as_a_name_in_a_line_is_refused_and_not_shown(tmp_path: Path, line: dict[str, Any]) -> None:
    for name in ("site.yml", "ansible.cfg"):
        (tmp_path / name).touch()
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "p", **line}) + "\n")
    out = tmp_path / "out.jsonl"
    arguments = [str(tmp_path / "in.jsonl"), "--out", str(out), "--json", "--project-dir", str(tmp_path)]
    done = subprocess.run(
        [Path(sys.executable).with_name("farmhand"), "batch", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "line 1 " in done.stderr
    assert "sk-ant-test" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_the_last_line() -> None:
    whole = {"total": 500, "done": 498, "failed": 2, "cancelled": 0, "left": 0, "cost_usd": 0.0123, "unpriced": 2}
    whole |= {"seconds": 12.3, "per_s": 40.7, "twice": 0, "twice_usd": 0.0, "uncertain": 0}
    line = "500 tasks: 498 done, 2 failed, 0 cancelled · US$ 0.0123 (2 unpriced) · 12 s · 40.7 tasks/s"
    assert summary(whole) == line
    told = summary(whole | {"left": 3, "twice": 1, "twice_usd": 0.0001, "uncertain": 4})
    assert ", 3 left ·" in told
    assert "1 ran twice, US$ 0.0001" in told
    bent = summary(whole | {"bent": {"economy": 2, "haiku": 1}})
    assert "2 tasks went on at half price when the budget had no more room" in bent
    assert "1 task went on with haiku when the budget had no more room" in bent
    assert "4 requests may have cost something" in told


def test_one_task_is_one_task() -> None:
    whole = {"total": 1, "done": 1, "failed": 0, "cancelled": 0, "left": 0, "cost_usd": 0.5, "unpriced": 0}
    whole |= {"seconds": 1.0, "per_s": 1.0, "twice": 0, "twice_usd": 0.0, "uncertain": 1}
    assert summary(whole).startswith("1 task: 1 done, ")
    assert "1 request may have cost" in summary(whole)
    place = {"attempts": 1, "containers": 1, "usd": "0.01"}
    assert "1 container, US$ 0.01 for them" in summary(whole | {"place": place})


def test_what_was_finished_before_costs_nothing_now() -> None:
    whole = {"total": 2, "done": 2, "failed": 0, "cancelled": 0, "left": 0, "cost_usd": 0.5, "unpriced": 0}
    whole |= {"seconds": 0.0, "per_s": 0.0, "twice": 0, "twice_usd": 0.0, "uncertain": 0, "cost_now_usd": 0.0}
    said = summary(whole | {"before": True, "finished_at": 1_795_000_000.0})
    when = time.strftime("%Y-%m-%d at %H:%M %Z", time.localtime(1_795_000_000))
    states = "2 done, 0 failed, 0 cancelled"
    assert said == f"2 tasks, finished before on {when}: {states} · US$ 0.50 was spent then · nothing was spent now"
    # A journal of an earlier version does not say when.
    assert summary(whole | {"before": True, "finished_at": None}).startswith("2 tasks, finished before: 2 done")
    # Of a batch that went on, the old cost and the new one are told apart.
    assert "US$ 0.50, US$ 0.10 of it now" in summary(whole | {"before": False, "cost_now_usd": 0.1})


def test_the_end_names_causes_lines_where_to_look_and_the_way_on() -> None:
    cause = {"code": "timeout", "message": "too long", "hint": "raise --timeout", "times": 7, "lines": [2, 3, 5, 8, 9]}
    other = {"code": "failed", "message": "", "hint": "", "times": 1, "lines": [4]}
    whole = {"batch": "people-1f2e3d4c", "out": "answers.jsonl", "failures": [cause, other]}
    assert why_failed(whole, listed=True) == [
        "not done: 7 with timeout: too long (raise --timeout); 1 with failed",
        "lines 2, 3, 4, 5, 8, 9, … of the input: see answers.jsonl, or farmhand list --failed --batch people-1f2e3d4c; "
        "the same command with --retry-failed runs them again",
    ]
    assert why_failed(whole | {"failures": [other] * 5}, listed=False)[0].endswith("; 2 for other reasons")
    single = why_failed(whole | {"failures": [other]}, listed=False)
    assert single[1].startswith("line 4 of the input: see answers.jsonl; the same command")
    assert why_failed(whole | {"failures": []}, listed=True) == []


def estimated(**more: Any) -> BatchEstimate:
    prices = [PlannedPrice("", False, 2 * 10**10, 10**12), PlannedPrice("", True, 10**10, 5 * 10**11)]
    prices.append(PlannedPrice("opus", False, None, None))
    usual: dict[str, Any] = {"tasks": 2, "tokens": 10, "most_output": 90, "counted": 2, "prices": prices}
    return BatchEstimate(**(usual | more))


def test_the_line_before_it_costs() -> None:
    assert batch_price.in_one_line(estimated(), None) == (
        "2 tasks, 10 tokens to read (counted by the API): US$ 0.02, and at most US$ 1.00 if the answers take all "
        "90 tokens (with --economy US$ 0.50, opus ?)"
    )
    assert "--max-usd" not in batch_price.in_one_line(estimated(), 1.0)
    assert batch_price.in_one_line(estimated(), 0.4).endswith("opus ?); --max-usd is US$ 0.40")
    assert batch_price.in_one_line(estimated(open_tasks=1), 9.0).endswith("; --max-usd is US$ 9.00")
    assert "(estimated: no route)" in batch_price.in_one_line(estimated(counted=0, uncounted="no route"), None)
    assert "estimated from 1 that the API counted" in batch_price.in_one_line(estimated(counted=1), None)
    assert batch_price.in_one_line(estimated(open_tasks=1), None).endswith(
        ": US$ 0.02 for the first requests; 1 task with tools makes more: only --max-usd limits them"
        " (with --economy US$ 0.01, opus ?)"
    )
    assert "no price is known" in batch_price.in_one_line(estimated(prices=[PlannedPrice("", False, None, None)]), None)
    assert batch_price.as_document(estimated(), 3.0)["prices"][0] == {
        "model": None,
        "economy": False,
        "sent_usd": 0.02,
        "most_usd": 1.0,
    }


@pytest.mark.parametrize(
    ("more", "limit", "max_usd", "asked"),
    [
        ({}, 1.0, None, ""),
        ({}, 0.99, None, "it may cost up to US$ 1.00, and confirm_usd is US$ 0.99"),
        ({}, 0.99, 0.5, ""),
        ({"open_tasks": 1}, 5.0, None, "what it may cost is not known"),
        ({"open_tasks": 1}, 5.0, 4.0, ""),
        ({"prices": [PlannedPrice("", False, None, None)]}, 5.0, None, "what it may cost is not known"),
    ],
)
def test_it_asks_above_confirm_usd(more: Any, limit: float, max_usd: float | None, asked: str) -> None:
    if not asked:
        batch_price.confirm(estimated(**more), limit, max_usd)
        return
    # There is no terminal here.
    with pytest.raises(UsageError, match=re.escape(asked)) as refused:
        batch_price.confirm(estimated(**more), limit, max_usd)
    assert refused.value.hint == "--yes answers yes"


NOBODY = {"FARMHAND_UPSTREAM_URL": "http://127.0.0.1:9"}


def test_a_dry_run_checks_prices_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('"a"\n{"prompt": "b", "max_tokens": 10}\n')
    words = ["in.jsonl", "--dry-run", "--key-source", "env:NO_SUCH_KEY"]
    done = CliRunner(env=NOBODY).invoke(batch.command, words, catch_exceptions=False)
    assert done.output.startswith("2 tasks, 2 tokens to read (estimated: there is no key here): US$ 0.0000002, and at")
    shown = json.loads(CliRunner(env=NOBODY).invoke(batch.command, [*words, "--json", "--out", "o"]).output)
    assert (shown["version"], shown["tasks"], shown["most_output_tokens"]) == (1, 2, 4106)
    (tmp_path / "in.jsonl").write_text("5\n")
    with pytest.raises(UsageError, match="nothing was sent"):
        CliRunner(env=NOBODY).invoke(batch.command, [*words, "--out", "o"], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_batch_that_nobody_confirmed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "farm_out", lambda *_, **__: pytest.fail("it was begun"))
    (tmp_path / "in.jsonl").write_text('"a"\n')
    monkeypatch.setenv("KEY", "sk-ant-test-confirm-0000000")
    words = ["in.jsonl", "--out", "o", "--key-source", "env:KEY", "--project-dir", str(Path(__file__).parents[3])]
    words += ["--confirm-usd", "0.0001"]
    with pytest.raises(UsageError, match="confirm_usd is"):
        CliRunner(env=NOBODY).invoke(batch.command, words, catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    with pytest.raises(UsageError, match="leave one of them out"):
        CliRunner(env=NOBODY).invoke(batch.command, [*words, "--restart", "--retry-failed"], catch_exceptions=False)
    monkeypatch.setattr(batch, "farm_out", lambda *_, **__: 0)
    assert CliRunner(env=NOBODY).invoke(batch.command, [*words, "--yes"], catch_exceptions=False).exit_code == 0


def test_columns_are_named_with_commas_and_quotes() -> None:
    assert batch.columns(()) is None
    assert batch.columns(("",)) == []
    assert batch.columns(("a, b", '"c,d"')) == ["a", "b", "c,d"]


def test_plain_lines_come_now_and_then_and_only_with_news(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay("lines", 10)
    progress.show(STANDING)
    progress._line_at -= 10
    progress._began -= 10
    progress.show(STANDING)
    progress._line_at -= 10
    progress.show(STANDING)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "5 of 10 · 1 failed · 0.5/s · US$ 0.25 · 10 s left\n"
    progress.say("farm1: lost")
    assert capsys.readouterr().err == "farmhand: farm1: lost\n"
    quiet = ProgressDisplay("quiet", 10)
    quiet._line_at -= 10
    quiet.show(STANDING)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressDisplay("bar", 10)
    now = STANDING | {"succeeded": 9, "waiting": "the API's\x1b[31m limit"}
    assert "\x1b" not in progress.words(now)
    progress.show(now)
    progress.say("a [red]line[/red]")
    progress.close()
    assert "a [red]line[/red]" in capsys.readouterr().err


def test_the_bar_is_gone_when_the_coordinator_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def fail(_coordinator: object, _show: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Coordinator, "__init__", lambda *_: None)
    monkeypatch.setattr(Coordinator, "run", fail)
    monkeypatch.setattr(ProgressDisplay, "close", lambda _display: closed.append(True))
    book: Any = SimpleNamespace(totals=SimpleNamespace(as_dict=lambda: {"total": 1}, left=1, cost_pico=0))
    progress = ProgressDisplay()
    with pytest.raises(RuntimeError):
        batch.farm_out(book, cast(Any, None), cast(Any, None), "", progress, out="", as_json=True, detach=False)
    assert closed == [True]


@pytest.mark.parametrize("usd", ["nan", "inf", "1e400", "0", "-1"])
@pytest.mark.parametrize("verb", ["batch", "code"])
def test_a_limit_is_an_amount(verb: str, usd: str, tmp_path: Path) -> None:
    words = {"batch": ["in", "--out", str(tmp_path / "o")], "code": [str(tmp_path), "x"]}[verb]
    done = CliRunner().invoke({"batch": batch, "code": code}[verb].command, [*words, "--max-usd", usd])
    assert (done.exit_code, "--max-usd" in done.output) == (2, True), done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "", "--place", "docker"], "--out '.' is not the name of a file"),
        (["--out", ".", "--place", "docker"], "--out '.' is not the name of a file"),
        (["--out", "-", "--place", "docker"], "--out '-' is not the name of a file"),
        (["--out", "o", "--place", "docker", "--spot"], "--spot is for --place aws-batch"),
        (["--out", "o", "--place", "docker", "--no-spot"], "--spot is for --place aws-batch"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_made(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "make_ready", lambda *_: pytest.fail("containers were started"))
    (tmp_path / "in.jsonl").write_text('"a"\n')
    project = ["--project-dir", str(Path(__file__).parents[3])]
    with pytest.raises(UsageError, match=re.escape(told)):
        CliRunner().invoke(batch.command, ["in.jsonl", *project, *words], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_containers_wait_for_an_input_that_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image takes minutes; a wrong line and a missing key are known in a moment."""
    monkeypatch.setattr(batch, "make_ready", lambda *_: pytest.fail("containers were started"))
    (tmp_path / "in.jsonl").write_text("5\n")
    project = ["--project-dir", str(Path(__file__).parents[3])]
    words = [str(tmp_path / "in.jsonl"), *project, "--out", str(tmp_path / "o"), "--place", "docker"]
    with pytest.raises(UsageError, match="nothing was sent"):
        CliRunner().invoke(batch.command, words, catch_exceptions=False)
    (tmp_path / "in.jsonl").write_text('"a"\n')
    words += ["--key-source", f"file:{tmp_path}/no-such-file"]
    with pytest.raises(FarmhandError, match="no-such-file"):
        CliRunner().invoke(batch.command, words, catch_exceptions=False)


def test_help_and_usage() -> None:
    text = CliRunner().invoke(batch.command, ["--help"]).output
    for name in (
        "--out",
        "--template",
        "--ordered",
        "--retry-failed",
        "--economy",
        "--max-usd",
        "--hosts",
        "--restart",
        "--keep",
        "--dry-run",
        "--yes",
        "--confirm-usd",
    ):
        assert name in text
    assert CliRunner().invoke(batch.command, []).exit_code == 2
    with pytest.raises(UsageError, match=r"^--out FILE is missing"):
        CliRunner().invoke(batch.command, ["x"], catch_exceptions=False)


def test_a_narrow_terminal_leaves_out_the_last_words_of_the_progress_and_cuts_none() -> None:
    display = ProgressDisplay()
    now: dict[str, Any] = {"total": 40, "succeeded": 0, "failed": 2, "cancelled": 0, "finished_now": 0, "cost_usd": 0.5}
    now |= {"waiting": "their batch runs as many at once as it may"}
    assert display.words(now).endswith("as it may")
    assert display.words(now, 40) == "2 failed · 0.0/s · US$ 0.50"
    assert display.words(now, 5) == "2 failed"
