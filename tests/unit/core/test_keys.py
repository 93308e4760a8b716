from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmhand.core import keys
from farmhand.core.child import scrubbed
from farmhand.plugins import search
from farmhand.plugins.scrub import clean_shell

KEY = "sk-ant-test-loopback-0000000000000000"
BODY = st.text("abcXYZ019_-", min_size=16, max_size=80)


def test_fingerprint_is_the_start_of_the_sha256() -> None:
    assert keys.fingerprint("abc") == "ba7816bf8f01"  # FIPS 180-2, appendix B.1
    assert keys.fingerprint(KEY) != keys.fingerprint(KEY + "0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (KEY + "\n", "white space"),
        (" " + KEY, "white space"),
        ("sk-proj-abcdefghijk", "start with sk-ant-"),
        ("sk-ant-xyzzy", "too short"),
        ("sk-ant-" + "a" * 600, "longer than 512"),
        ("sk-ant-test\x00aaaaaaaa", "characters other"),
        ("sk-ant-tést-aaaaaaaa", "characters other"),
    ],
)
def test_a_malformed_key_is_refused_without_being_shown(text: str, reason: str) -> None:
    assert not keys.is_key(text)
    with pytest.raises(ValueError, match=reason) as caught:
        keys.check_format(text)
    assert text.strip().removeprefix("sk-ant-") not in str(caught.value) or not text


@given(BODY)
def test_a_key_is_taken_and_redacted(body: str) -> None:
    key = "sk-ant-" + body
    assert keys.check_format(key) == key
    assert body not in keys.redact(f"x={key} y").replace(keys.REDACTED, "")


@given(st.text(max_size=200), BODY)
def test_redact_leaves_no_key_in_any_surroundings(around: str, body: str) -> None:
    assert "sk-ant-" + body not in keys.redact(around + "sk-ant-" + body + around)


def test_redact_keeps_other_text_and_is_stable() -> None:
    assert keys.redact("nothing here") == "nothing here"
    once = keys.redact(f"a {KEY}, b")
    assert once == f"a {keys.REDACTED}, b"
    assert keys.redact(once) == once


def test_what_a_host_tells_of_itself_is_harmless() -> None:
    told = {f"a {KEY}": [KEY, 1, None, {"url": "http://jo:hunter2@x/y"}]}
    assert keys.harmless(told) == {
        f"a {keys.REDACTED}": [keys.REDACTED, 1, None, {"url": "http://…@x/y"}],
    }


@pytest.mark.parametrize(
    ("text", "hidden"), [(f"sk-ant-{'a' * 16}", True), (KEY.upper(), True), ("sk-ant-admin…", False)]
)
def test_one_pattern_says_what_is_hidden_searched_for_and_taken_out(text: str, hidden: bool) -> None:
    assert (keys.redact(text) != text) is hidden
    assert search.holds_key(io.BytesIO(text.encode())) is hidden
    assert (clean_shell(f"# {text}\n")[1] != []) is hidden
    assert ("A" not in scrubbed({"A": text})) is hidden
