from hypothesis import given
from hypothesis import strategies as st

from lakeward.wording import first_line, one_line


@given(st.text(), st.integers(0, 300))
def test_one_line_is_printable_and_no_longer_than_asked(said, most):
    line = one_line(said, most)
    assert line.isprintable()
    assert len(line) <= most
    assert "  " not in line


def test_words_stay_and_what_moves_a_cursor_goes():
    assert one_line("no\n  such\x1b[2J\ttable\u2028 é") == "no such [2J table é"
    assert first_line(ValueError("no such table\nLINE 1: SELECT")) == "no such table"
