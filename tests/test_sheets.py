"""Pictures with their names on one sheet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylewatch.engine.sheets import sheet_of


def plain(height, width, grey):
    return np.full((height, width, 3), grey, np.float32)


@given(st.integers(1, 20), st.integers(10, 80), st.integers(10, 80), st.integers(8, 60))
def test_each_picture_is_there_with_room_for_its_name(count, height, width, side):
    pictures = [("", plain(height, width, 10 * n)) for n in range(count)]
    sheet, _ = sheet_of(pictures, side)
    small = min(1.0, side / max(height, width))
    cell_height = max(1, round(height * small)) + 24
    cell_width = max(1, round(width * small))
    columns, rows = sheet.shape[1] // cell_width, sheet.shape[0] // cell_height
    assert (rows - 1) * columns < count <= rows * columns
    for n in range(count):
        top, left = n // columns * cell_height, n % columns * cell_width
        cell = sheet[top : top + cell_height - 24, left : left + cell_width]
        assert cell == pytest.approx(10 * n, abs=1)


def test_a_name_is_written_below_its_picture():
    with_name, without = (sheet_of([(name, plain(40, 90, 200))], 90)[0] for name in ("ink", ""))
    assert (with_name[:40] == without[:40]).all()
    assert with_name[40:].min() < 50 < without[40:].min()


LONG = "Vincent_van_Gogh_-_De_sterrennacht"


def test_names_are_numbered_where_one_is_too_long_or_of_letters_that_can_t_be_drawn():
    def below(*names):
        return sheet_of([(name, plain(40, 120, 200)) for name in names], 120)[1]

    assert below("ink", "classic-scaled") == ["ink", "classic-scaled"]
    ink, gogh = below("ink", LONG)
    assert ink == "1 ink"
    assert gogh.startswith("2 Vincent")
    assert gogh.endswith("…")
    assert below("gemälde", "北斎", "ink") == ["1 gemalde", "2", "3 ink"]


@pytest.mark.parametrize("width", [1, 16, 40])
def test_no_name_runs_into_the_next_one_and_each_number_is_whole(width):
    sheet, labels = sheet_of([(LONG, plain(900, width, 200))] * 12, 900)
    assert [label.split()[0] for label in labels] == [str(number) for number in range(1, 13)]
    names = sheet[900:].reshape(24, 12, -1, 3)  # they are all in one row
    assert names[:, :, -2:].min() > 250
    assert (names.min(axis=(0, 2, 3)) < 50).all()
