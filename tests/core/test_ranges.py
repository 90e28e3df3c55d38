import math

import pytest

from qpairs.core.ranges import ABOVE_ZERO, Range


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (ABOVE_ZERO, [1e-9, 3], [0, -1], "> 0"),
        (Range(1), [1, 2], [0.99], ">= 1"),
        (Range(high=2), [2, -math.inf], [2.01], "<= 2"),
        (Range(high=2, open_high=True), [1.99], [2], "< 2"),
        (Range(1, 2), [1, 1.5, 2], [0, 3], "1 <= x <= 2"),
        (Range(-1, 1, open_high=True), [-1, 0], [1, -1.1], "-1 <= x < 1"),
        (Range(0, 1, open_low=True), [1, 0.1], [0, 1.1], "0 < x <= 1"),
    ],
)
def test_a_range_checks_numbers_and_describes_itself(allowed, inside, outside, text):
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in [*outside, math.nan])
    assert allowed.describe("x") == text
