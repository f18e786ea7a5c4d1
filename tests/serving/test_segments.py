"""SMS segments, counted by hand from TS 23.040 and TS 23.038."""

from __future__ import annotations

import pytest

from serving.segments import room, segments


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("£éÄ@Δ\n" * 26, 1),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("中" * 70, 1),
        ("中" * 71, 2),
        ("中" * 134, 2),
        ("中" * 135, 3),
        ("a" * 70 + "中", 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_segments_are_counted_in_the_alphabet_that_the_text_needs(text: str, count: int) -> None:
    assert segments(text) == count


def test_a_character_of_two_units_is_never_cut_between_segments() -> None:
    assert segments("a" * 152 + "€" + "a" * 152) == 3  # 306 septets: two segments of 153 would cut the escape
    assert segments("中" * 66 + "😀" + "中" * 66) == 3  # 134 units, likewise


@pytest.mark.parametrize(("characters", "count"), [(1, 1), (160, 1), (161, 2), (306, 2), (307, 3)])
def test_room_is_what_a_text_of_that_many_plain_characters_takes(characters: int, count: int) -> None:
    assert room(characters) == count == segments("a" * characters)
