"""Words in texts. Both are compared in one form: Unicode NFKC, case folded.

Regular expressions are those of RE2, which takes time in proportion to the text, whatever the pattern.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import field, frozen

from lakeward import OptionError
from lakeward.grouping import Array
from lakeward_plugins.transforms.emergency.options import WORST_FIRST, Severity

Match = Literal["word", "substring", "exact", "regex"]
AROUND = {"word": (r"(?<!\w)", r"(?!\w)"), "substring": ("", ""), "exact": (r"\A\s*", r"\s*\Z")}
SPACE = r"[\s\x0b\x1c-\x1f]*"  # what Python takes for it
AROUND_ASCII = {"word": ("(?:^|[^a-z0-9_])", "(?:[^a-z0-9_]|$)"), "substring": ("", ""), "exact": (f"^{SPACE}", f"{SPACE}$")}


@frozen(eq=False)
class Found:
    """Rows with keywords, ascending."""

    places: Array
    which: Array
    """The set of keywords in each, by number."""
    sets: list[list[int]]
    messages: Any
    """The texts that hold them."""


@frozen(eq=False)
class Keywords:
    """What to look for. `found` is a pure function of texts."""

    words: list[str]
    severities: list[Severity]
    match: Match
    _folded: list[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_folded", [folded(word) for word in self.words])  # it is frozen
        for index, word in enumerate(self._folded):
            if not word.strip():
                raise OptionError(f"trigger_keywords[{index}]", "expected a word, got an empty one")
        for index, pattern in enumerate(self.words if self.match == "regex" else []):
            try:
                pc.match_substring_regex(pa.array([""]), pattern, ignore_case=True)
            except pa.ArrowInvalid as error:
                said = str(error).rpartition(": ")[2]
                raise OptionError(f"trigger_keywords[{index}]", f"no regular expression of the kind RE2: {said}") from error

    @classmethod
    def of(cls, words: list[str], match: Match, severities: Mapping[str, Severity], default: Severity) -> Keywords:
        """From the options of such names."""
        form = (lambda text: text) if match == "regex" else folded
        given = {form(word): severity for word, severity in severities.items()}
        if unused := given.keys() - {form(word) for word in words}:
            raise OptionError("keyword_severity", f"{', '.join(sorted(unused))} not among trigger_keywords")
        return cls(words, [given.get(form(word), default) for word in words], match)

    def found(self, batch: pa.RecordBatch, fields: list[str]) -> Found:
        """The rows with keywords in any of the fields."""
        sets: dict[frozenset[int], int] = {frozenset(): 0}  # sets of keywords, numbered
        which, lines = np.zeros(batch.num_rows, np.int64), []
        for name in fields if self.words else []:
            column = batch.column(name)
            if pa.types.is_null(column.type):
                continue
            encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()  # each text is looked at once
            by_text = np.zeros(len(encoded.dictionary) + 1, np.int64)
            for text, words in self._in_texts(encoded.dictionary).items():
                by_text[text] = sets.setdefault(frozenset(words), len(sets))
            texts = encoded.indices.cast(pa.int64()).fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
            here = by_text[texts]
            if here.any():
                which = _united(which, here, sets)
                lines.append(pc.if_else(pa.array(here > 0), encoded.cast(pa.string()), pa.scalar(None, pa.string())))
        places = np.flatnonzero(which)
        messages = [line.take(pa.array(places, pa.int64())) for line in lines]
        joined: Any = pc.binary_join_element_wise(*messages, " | ", null_handling="skip") if messages else pa.array([], pa.string())
        return Found(places, which[places], [sorted(words) for words in sets], joined)

    def worst(self, words: list[int]) -> Severity:
        """The worst severity of these."""
        return min((self.severities[word] for word in words), key=WORST_FIRST.index, default=WORST_FIRST[-1])

    def _in_texts(self, texts: Any) -> dict[int, set[int]]:
        """By the place of each text that has any: its keywords."""
        texts = texts.cast(pa.large_string())
        plain = pc.string_is_ascii(texts).fill_null(True)
        lowered = pc.ascii_lower(texts)
        strange = np.flatnonzero(~_numpy(plain))
        if len(strange):  # these are few; Arrow cannot fold case as Unicode has it
            unusual = [folded(text) for text in texts.take(pa.array(strange)).to_pylist()]
            lowered = pc.replace_with_mask(lowered, pc.invert(plain), pa.array(unusual, pa.large_string()))
        if self.match == "regex":
            by_word = [
                np.flatnonzero(_numpy(pc.match_substring_regex(lowered, one, ignore_case=True))) for one in map(_pattern, self.words)
            ]
        else:
            by_word = self._by_word(lowered, strange)
        found: dict[int, set[int]] = {}
        for word, places in enumerate(by_word):
            for place in places.tolist():
                found.setdefault(place, set()).add(word)
        return found

    def _by_word(self, lowered: Any, strange: Array) -> list[Array]:
        before, after = AROUND_ASCII[self.match]
        words = "|".join(re.escape(word) for word in self._folded if word.isascii()) or r"[^\x00-\x{10FFFF}]"
        likely = _numpy(pc.match_substring_regex(lowered, f"{before}(?:{words}){after}"))
        likely[strange] = True
        rows = np.flatnonzero(likely)
        texts = lowered.take(pa.array(rows)).to_pylist()
        before, after = AROUND[self.match]
        patterns = [re.compile(before + re.escape(word) + after) for word in self._folded]
        return [rows[[index for index, text in enumerate(texts) if pattern.search(text)]] for pattern in patterns]


def _united(left: Array, right: Array, sets: dict[frozenset[int], int]) -> Array:
    """The numbers of the unions of two sets for each row."""
    if not left.any():
        return right
    count, names = len(sets), list(sets)
    pairs, row = np.unique(left * count + right, return_inverse=True)
    unions = [sets.setdefault(names[pair // count] | names[pair % count], len(sets)) for pair in pairs.tolist()]
    return np.array(unions, np.int64)[row]


def folded(text: str) -> str:
    """The form in which texts and keywords are compared."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _pattern(word: str) -> str:
    """A regular expression for texts in that form: its letters beyond ASCII are folded one by one, all else has a meaning."""
    return "".join(one if one.isascii() else re.escape(folded(one)) for one in unicodedata.normalize("NFC", word))


def _numpy(matches: Any) -> Array:
    return np.array(matches.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)
