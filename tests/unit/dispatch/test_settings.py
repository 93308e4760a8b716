from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farmhand.dispatch.settings import Settings, config_path, load, parse
from farmhand.errors import NotConfigured, UsageError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_any_file_there_are_defaults(tmp_path: Path) -> None:
    settings = load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert settings == Settings(config_name=str(tmp_path / "farmhand" / "config.toml"))
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
        ("host", "not TOML"),
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


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert config_path(None, {}) == ("/h/.config/farmhand/config.toml", False)
    assert config_path(None, {"XDG_CONFIG_HOME": "relative"}) == ("/h/.config/farmhand/config.toml", False)
    assert config_path("~/x.toml", {"FARMHAND_CONFIG": "/y"}) == ("/h/x.toml", True)


LINES = [
    'host = "a"',
    "timeout_s=5",
    "n = 007",
    "f = 1.5",
    "# note",
    "",
    "[table]",
    "a.b = 1",
    '"q" = "x"',
    's = "\\\\n"',
]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text("ab=\"'\\\\ #\t\r01\x7f\xe9", max_size=9)), max_size=4))
@example(['host = "a"', 'host = "b"'])
def test_what_is_read_without_tomllib_means_the_same(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(tomllib.TOMLDecodeError):
            parse(text)
    else:
        assert parse(text) == expected
