from __future__ import annotations

import pytest

from farmhand.core.record import Record


class Point(Record):
    x: int
    y: int = 2


def test_it_is_as_a_frozen_dataclass() -> None:
    point = Point(x=1)
    assert (point.x, point.y) == (1, 2)
    assert point == Point(y=2, x=1)
    assert point != Point(x=2)
    assert len({point, Point(x=1)}) == 1
    assert repr(point) == "Point(x=1, y=2)"
    assert point.replaced(y=3) == Point(x=1, y=3)
    assert Point.names() == ["x", "y"]
    with pytest.raises(AttributeError, match="cannot be changed"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"unknown \['z'\], missing \['x'\]"):
        Point(z=1)  # type: ignore[call-arg]
