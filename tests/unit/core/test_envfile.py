from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core.envfile import EnvFileError, parse

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# A=1\n\n   \n", {}),
        ("A=1\nB=two words in quotes".replace("two words in quotes", '"two words"'), {"A": "1", "B": "two words"}),
        ("export A=1", {"A": "1"}),
        ("export\tA='x y'  # why", {"A": "x y"}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("  A=1", {"A": "1"}),
        ("A=a#b # c", {"A": "a#b"}),
        ("A='$(id) `id` $HOME \\'", {"A": "$(id) `id` $HOME \\"}),
        (r'A="q\"uo\\te \$5 \n"', {"A": r'q"uo\te $5 \n'}),
        ("A=a=b=c", {"A": "a=b=c"}),
    ],
)
def test_what_is_understood(text: str, values: dict[str, str]) -> None:
    assert parse(text) == values


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("A=1\nB=$(cat /etc/passwd)", 2, "expansions"),
        ("A=`id`", 1, "expansions"),
        ('A="x $HOME"', 1, "expansions"),
        ('A="`id`"', 1, "expansions"),
        ("A=$B", 1, "expansions"),
        ("A=1\n\nA=1", 3, "A is set a second time (first on line 1)"),
        ("A='open", 1, "single quote is never closed"),
        ('A="open\nB=1', 1, "double quote is never closed"),
        ("A = 1", 1, "no space before '='"),
        ("just words", 1, "not of the form NAME=VALUE"),
        ("1A=x", 1, "not of the form NAME=VALUE"),
        ("A=one two", 1, "more text after the value"),
        ("A='x'y", 1, "needs quotes"),
        ("A=x;id", 1, "needs quotes"),
        ("A=x'y'", 1, "a quote inside a value"),
        ("source other.env", 1, "not of the form NAME=VALUE"),
    ],
)
def test_what_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(EnvFileError) as caught:
        parse(text)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line}: ")
    assert reason in str(caught.value)


def test_no_value_is_in_a_message() -> None:
    for text in ("K=sk-ant-test-aaaaaaaa extra", "K='sk-ant-test-aaaaaaaa", "K=1\nK=sk-ant-test-aaaaaaaa"):
        with pytest.raises(EnvFileError) as caught:
            parse(text)
        assert "sk-ant" not in str(caught.value)


@given(st.dictionaries(NAMES, LINE.filter(lambda text: "'" not in text)))
def test_what_is_single_quoted_comes_back_as_it_is(values: dict[str, str]) -> None:
    assert parse("\n".join(f"{name}='{value}'" for name, value in values.items())) == values


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        values = parse(text)
    except EnvFileError:
        return
    assert all(name.isidentifier() for name in values)
