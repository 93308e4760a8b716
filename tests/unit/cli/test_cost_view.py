from __future__ import annotations

import pytest

from farmhand.cli import cost_view


@pytest.mark.parametrize(("saving", "shown"), [("1.20", "-1.20"), ("-0.30", "+0.30"), ("0.00", "0.00")])
def test_a_saving_stands_as_what_it_does_to_the_bill(saving: str, shown: str) -> None:
    assert cost_view._negated(saving) == shown


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('{"run":"1","team":"x"}', "run=1, team=x"),
        ("claude-haiku-5-5", "claude-haiku-5-5"),
        ("{not labels", "{not labels"),
        ("{}", ""),
    ],
)
def test_labels_read_as_people_write_them(key: str, shown: str) -> None:
    assert cost_view._label(key) == shown
