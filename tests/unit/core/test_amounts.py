from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from farmhand.cli import batch, code, rotate, run
from farmhand.cli.gateway import allow
from farmhand.core.amounts import duration, money
from farmhand.core.errors import NotConfigured
from farmhand.core.settings import load


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1.5", 1.5), ("1e3", 1000), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2D", 172800)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "10 m", "-1", "nan", "inf", "1_0", "1e3m", "m10", "\u0661m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


def test_money() -> None:
    assert [money(text) for text in ("2", "0.05", "$0.05", "US$ 1", "us$2")] == [2, 0.05, 0.05, 1, 2]
    for text in ("", "$", "-1", "2 EUR", "nan", "1,5"):
        with pytest.raises(ValueError, match="is not an amount of money"):
            money(text)


def test_settings_take_durations_too(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('timeout_s = "10m"\npatience_s = 90\n')
    conf = load(str(path), {"FARMHAND_CONNECT_TIMEOUT_S": "1m"})
    assert (conf.timeout_s, conf.patience_s, conf.connect_timeout_s) == (600, 90, 60)
    path.write_text('timeout_s = "soon"\n')
    with pytest.raises(NotConfigured, match=r"timeout_s is 'soon', not a number of seconds, or a time such as 90s"):
        load(str(path), {})


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (run.command, ["--timeout", "10x", "hi"]),
        (run.command, ["--connect-timeout", "10x", "hi"]),
        (batch.command, ["--patience", "10x", "in", "--out", "o"]),
        (code.command, ["--timeout", "10x", ".", "hi"]),
        (rotate.command, ["--drain-timeout", "10x"]),
        (allow.command, ["metered", "--for", "10x", "--max-usd", "1"]),
    ],
)
def test_every_verb_reads_durations_in_one_form(command: object, arguments: list[str]) -> None:
    done = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert done.exit_code == 2
    assert "'10x' is not a duration" in done.output
