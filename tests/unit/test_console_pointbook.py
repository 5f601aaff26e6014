"""Points are found by their id, their name and their district's name."""

from __future__ import annotations

import numpy as np

from console.display import City, display
from console.pointbook import PointBook
from tests.tables import point_table


def test_every_word_may_be_of_the_id_the_name_or_the_district() -> None:
    points = point_table(9)
    points.districts = ["锦江区", "Wuhou"]
    points.district = (np.arange(9) % 2).astype(np.int32)
    points.retired[4] = True
    city = City("成都", "Asia/Shanghai", {})
    book = PointBook(display(points, city), city)

    def found(asked: str) -> list[str]:
        return sorted(one["id"] for one in book.find(asked, 50, None)["found"])

    assert found("P3") == found("点 3") == ["p3"]
    assert found("wuhou") == ["p1", "p3", "p5", "p7"]
    assert found("锦江 p2") == ["p2"]
    assert found("p4") == [], "retired points are not shown"
