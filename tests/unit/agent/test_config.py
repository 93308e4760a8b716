from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from farmhand.agent.config import Config, load
from farmhand.agent.main import main
from farmhand.core.errors import NotConfigured
from farmhand.core.task import Usage
from filter_plugins.farmhand import seconds

ROLE = Path(__file__).resolve().parents[3] / "roles" / "jada_agent"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    assert load(path) == Config()
    assert Config().upstream_url == "https://api.anthropic.com"
    assert not Config().network_full


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("slots_api = 0", "slots_api"),
        ("slots_api = 'many'", "slots_api"),
        ("colour = 'red'", "colour"),
        ("upstream_url = 'ftp://x'", "upstream_url"),
        ("upstream_url = 'https://x/v1'", "upstream_url"),
        ("upstream_url = 'https://'", "upstream_url"),
        ("state_dir = 'here'", "state_dir"),
        ("ca_file = '/nonexistent.pem'", "/nonexistent.pem"),
        ("task_timeout_max_s = 0", "task_timeout_max_s"),
        ("budget_day_usd = 0", "budget_day_usd"),
        ("budget_day_usd = nan", "budget_day_usd"),
        ("retention_days = 0", "retention_days"),
        ("retention_mb = 0.5", "retention_mb"),
        ("retention_days = 9\nhistory_days = 8", "history_days"),
        ("prices_file = 'here.toml'", "prices_file must be an absolute path"),
        ("prices_file = '/nonexistent.toml'", "prices_file /nonexistent.toml does not exist"),
        ("otel_endpoint = 'localhost:4318'", "otel_endpoint must be an address such as http://127.0.0.1:4318"),
        ("not toml", "not TOML"),
        # tomllib passes on what Python itself raises: cpython#153392 and its like.
        pytest.param(f"idle_s = {'9' * 5000}", "not TOML", id="5000 digits"),
        pytest.param("idle_s = " + "[" * 200_000, "not TOML", id="deep"),
        pytest.param(f"idle_s = {'9' * 400}", "idle_s", id="400 digits"),
        ("idle_s = inf", "idle_s"),
        ("drain_s = inf", "drain_s"),
        ("retention_mb = 99999999999999999999", "retention_mb"),
        ("upstream_url = 'http://a:99999'", "upstream_url"),
        ("upstream_url = 'http://a b/'", "upstream_url"),
        ("upstream_url = 'http://user:pw@a/'", "upstream_url"),
        ("upstream_url = 'http://[::1/'", "upstream_url"),
        ('state_dir = "/tmp/\\u0000b"', "state_dir"),
        (f"runtime_dir = '/{'d' * 120}'", "runtime_dir is too long"),
        ("economy_poll_s = nan", "economy_poll_s"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert main(["check-config", str(path)]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert named in line


def test_prices_of_the_operator_are_checked_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "claude-haiku-5-5"\ninput = "1"\noutput = "3"\n')
    config = tmp_path / "config.toml"
    config.write_text(f"prices_file = '{prices}'")
    assert main(["check-config", str(config)]) == main(["check-prices", str(prices)]) == 0
    assert load(config).prices().cost("claude-haiku-5-5", Usage(output_tokens=1)) == 3 * 10**6
    assert Config().prices().cost("claude-haiku-5-5", Usage(output_tokens=2)) == 10**6
    bad = tmp_path / "bad.toml"
    bad.write_text('[[price]]\nmodel = "m"\ninput = "free"\noutput = "3"\n')
    config.write_text(f"prices_file = '{bad}'")
    for argv in (["check-config", str(config)], ["check-prices", str(bad)]):
        assert main(argv) == 3
        [line] = capsys.readouterr().err.splitlines()
        assert f"{bad}: price 1 (m).input" in line


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(tmp_path / "none.toml")]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_good_file_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.toml"
    path.write_text('upstream_url = "http://127.0.0.1:1"\nbudget_day_usd = 2.5\nallowed_groups = ["a"]\n')
    assert main(["check-config", str(path)]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_collector_needs_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text('otel_endpoint = "http://127.0.0.1:4318"\n')
    assert load(path).otel_endpoint
    monkeypatch.setattr("farmhand.agent.config.find_spec", lambda _name: None)
    with pytest.raises(NotConfigured, match=r"install requirements/otel.txt"):
        load(path)


def test_the_role_writes_every_setting() -> None:
    template = (ROLE / "templates" / "config.toml.j2").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+) = ", template, re.MULTILINE)) == set(Config.__struct_fields__)


def test_the_role_s_defaults_are_the_agent_s() -> None:
    role = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    for name, value in msgspec.to_builtins(Config()).items():
        if name in (
            "state_dir",
            "runtime_dir",
            "sandbox_dir",
            "repositories",
            "credential",
            "metrics_groups",
            "metrics_note",
            "claude_path",
        ):  # fixed by the units or the containers, no variables
            continue
        given = role[f"jada_agent_{name.removesuffix('_s')}"]
        if value is None:
            assert given == "", name
            continue
        assert (seconds(given) if name.endswith("_s") else given) == (
            list(value) if isinstance(value, tuple) else value
        ), name
