"""What libraries, servers and files say, so that a message or a log line can hold it."""

from __future__ import annotations


def one_line(said: object, most: int = 200) -> str:
    """All of it on one line, of printable letters only: it cannot move a terminal's cursor. Cut after `most` letters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(said)).split())[:most]


def first_line(said: object, most: int = 200) -> str:
    """The first line only, where details that help nobody follow."""
    return one_line(str(said).partition("\n")[0], most)
