from __future__ import annotations

import re
from pathlib import Path

import pytest

from farmhand.core.errors import NotConfigured, UsageError
from farmhand.core.settings import Settings, config_path, load


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_any_file_there_are_defaults(tmp_path: Path) -> None:
    settings = load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert settings == Settings(config_file=str(tmp_path / "farmhand" / "config.toml"))
    assert settings.key_source == "file:~/repos.env"
    assert settings.hosts_path == tmp_path / "farmhand" / "hosts.json"


def test_flag_over_variable_over_file(config: Path) -> None:
    config.write_text('host = "a"\nmodel = "opus"\ntimeout_s = 5\nconnect_timeout_s = 2.5\n')
    environ = {"FARMHAND_CONFIG": str(config), "FARMHAND_HOST": "b", "FARMHAND_TIMEOUT_S": "7"}
    settings = load(environ=environ, host="c", model=None)
    assert (settings.host, settings.model, settings.timeout_s, settings.connect_timeout_s) == ("c", "opus", 7.0, 2.5)
    assert load(environ=environ).host == "b"
    assert load(str(config), environ={"FARMHAND_CONFIG": "/nowhere"}).host == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('colour = "red"', "unknown key 'colour'"),
        ("host = 3", "host is 3, not a string"),
        ('timeout_s = "x"', "timeout_s is 'x', not a number"),
        ("timeout_s = true", "not a number"),
        ("timeout_s = -1", "not 0 to 86400"),
        ("timeout_s = nan", "not 0 to 86400"),
        ("connect_timeout_s = 0.1", "not 1 to 86400"),
        ('otel_endpoint = "localhost:4318"', "otel_endpoint is not an address such as http://127.0.0.1:4318"),
        ('baseline_model = ""', "baseline_model is empty"),
        ('key_source = ""', "key_source is empty"),
        ('upstream_url = "ftp://example.com"', "upstream_url is 'ftp://example.com', not an http"),
        ('admin_url = "http://example.com"', "admin_url is 'http://example.com', not an https URL"),
        ('admin_url = "https://"', "admin_url is 'https://', not an https URL"),
        ("host", "not TOML"),
        pytest.param("host = " + "[" * 200_000, "not TOML", id="deep"),
        ('fallback = "later"', "fallback is 'later', not one of ask, queue, subscription, none"),
        ('allow_subscription = "yes"', "allow_subscription is 'yes', not true or false"),
        ("allow_subscription = 1", "allow_subscription is 1, not true or false"),
        ('config_file = "x"', "unknown key"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    with pytest.raises(NotConfigured, match=words) as caught:
        load(str(config), environ={})
    assert str(config) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_variables_and_flags(config: Path) -> None:
    config.touch()
    with pytest.raises(NotConfigured, match="FARMHAND_TIMEOUT_S is 'soon'"):
        load(str(config), environ={"FARMHAND_TIMEOUT_S": "soon"})
    with pytest.raises(NotConfigured, match="FARMHAND_FALLBACK is 'never', not one of"):
        load(str(config), environ={"FARMHAND_FALLBACK": "never"})
    with pytest.raises(NotConfigured, match="FARMHAND_ALLOW_SUBSCRIPTION is 'maybe', not true or false"):
        load(str(config), environ={"FARMHAND_ALLOW_SUBSCRIPTION": "maybe"})
    with pytest.raises(UsageError, match="--connect-timeout is 0"):
        load(str(config), environ={}, connect_timeout_s=0)
    with pytest.raises(UsageError, match="--model is empty"):
        load(str(config), environ={}, model="")


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="does not exist"):
        load(str(tmp_path / "none"), environ={})
    with pytest.raises(NotConfigured, match="does not exist"):
        load(environ={"FARMHAND_CONFIG": str(tmp_path / "none")})
    with pytest.raises(NotConfigured, match="cannot be read"):
        load(str(tmp_path), environ={})


def test_prices_that_were_named_must_be_there_and_the_usual_ones_need_not(config: Path) -> None:
    config.touch()
    assert load(str(config), environ={}).prices_path == config.with_name("prices.toml")
    (own := config.with_name("own.toml")).touch()
    assert load(str(config), environ={}, prices_file=str(own)).prices_path == own
    with pytest.raises(NotConfigured, match=r"the price file .*/none\.toml does not exist"):
        _ = load(str(config), environ={}, prices_file=str(config.with_name("none.toml"))).prices_path


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert config_path(None, {}) == ("/h/.config/farmhand/config.toml", False)
    assert config_path(None, {"XDG_CONFIG_HOME": "relative"}) == ("/h/.config/farmhand/config.toml", False)
    assert config_path("~/x.toml", {"FARMHAND_CONFIG": "/y"}) == ("/h/x.toml", True)


def test_the_subscription_is_off_unless_it_is_turned_on(config: Path) -> None:
    config.touch()
    assert load(str(config), environ={}).allow_subscription is False
    for text, wanted in (("true", True), ("1", True), ("False", False), ("0", False)):
        assert load(str(config), environ={"FARMHAND_ALLOW_SUBSCRIPTION": text}).allow_subscription is wanted
    config.write_text('allow_subscription = true\nfallback = "subscription"\n')
    assert load(str(config), environ={}).allow_subscription is True
    assert load(str(config), environ={"FARMHAND_FALLBACK": "none"}, allow_subscription=False) == Settings(
        config_file=str(config), fallback="none"
    )


def test_the_example_names_every_setting_with_its_default() -> None:
    example = Path(__file__).parents[3] / "docs" / "config.example.toml"
    assert load(str(example), environ={}) == Settings(config_file=str(example))
    named = {line.split(" = ")[0] for line in example.read_text().splitlines() if line and not line.startswith("#")}
    assert named == {*Settings._fields} - {"config_file", "pots"}


def test_what_turns_the_subscription_on_states_the_provider_s_position_and_its_date() -> None:
    docs = Path(__file__).parents[3] / "docs"
    for name in ("config.example.toml", "subscription.md"):
        text = (docs / name).read_text()
        for words in ("should use API keys", "without notice", "unmodified"):
            assert words in text, f"{name} lacks {words!r}"
        assert re.search(r"read on 20\d\d-\d\d-\d\d", text, re.IGNORECASE)


@pytest.mark.parametrize("name", ["admin_url", "upstream_url"])
def test_a_bad_address_on_the_command_line_is_a_bad_option(name: str) -> None:
    for url in ("ftp://example.com", "example.com", "https://", "http://[::1", "https://example.com:x"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is '{url[:4]}"):
            load(environ={}, **{name: url})
    assert getattr(load(environ={}, **{name: "http://127.0.0.1:8080"}), name) == "http://127.0.0.1:8080"
