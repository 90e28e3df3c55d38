import math

import pytest

from qpairs.core.ranges import Range


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (Range(above=0), [1e-9, 3], [0, -1], "x > 0"),
        (Range(at_least=1), [1, 2], [0.99], "x >= 1"),
        (Range(at_most=2), [2, -math.inf], [2.01], "x <= 2"),
        (Range(below=2), [1.99], [2], "x < 2"),
        (Range(at_least=1, at_most=2), [1, 1.5, 2], [0, 3], "1 <= x <= 2"),
        (Range(at_least=-1, below=1), [-1, 0], [1, -1.1], "-1 <= x < 1"),
        (Range(above=0, at_most=1), [1, 0.1], [0, 1.1], "0 < x <= 1"),
    ],
)
def test_a_range_checks_numbers_and_describes_itself(allowed, inside, outside, text):
    assert all(allowed.allows(value) for value in inside)
    assert not any(allowed.allows(value) for value in [*outside, math.nan])
    assert allowed.text("x") == text
