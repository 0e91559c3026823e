"""EMG-9: words in texts."""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from alarm_oracle import CUTS, Row, batch_of, emergency, run, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.yamlfile.build import Mistakes

WORDS = ["EMERGENCY", "CRITICAL", "ALERT"]


def keyword_rows(text: str | None, **options: Any) -> list[dict[str, Any]]:
    return run(emergency(**{"trigger_keywords": WORDS} | options), [Row(1, "a", 1.0, text)])


@pytest.mark.parametrize("text", ["an alert!", "ALERT", "critical-alert", "\uff21\uff2c\uff25\uff32\uff34 on line 3", "[Alert]", "é alert"])
def test_emg_09_a_keyword_is_found_as_a_word_in_any_case_and_form(text: str) -> None:
    assert len(keyword_rows(text)) == 1


@pytest.mark.parametrize("text", ["alerted", "realert", "alert_2", "éalert", "alert5", "all good", "", None])
def test_emg_09_part_of_a_word_is_not_the_word(text: str | None) -> None:
    assert keyword_rows(text) == []


def test_emg_09_two_keywords_in_one_text_are_one_alert_that_lists_both() -> None:
    (alert,) = keyword_rows("alert: CRITICAL", keyword_severity={"alert": "Minor", "Critical": "Extreme"})
    assert (alert["reasons"], alert["severity"], alert["urgency"]) == (["CRITICAL", "ALERT"], "Extreme", "Immediate")
    assert (alert["event"], alert["message"], seconds(alert["timestamp"]), alert["value"]) == ("RAISE", "alert: CRITICAL", 1, None)
    assert (alert["alert_type"], alert["count"], alert["certainty"]) == ("keyword", None, "Observed")


def test_emg_09_other_ways_to_match() -> None:
    assert len(keyword_rows("realerted", keyword_match="substring")) == 1
    assert len(keyword_rows(" Alert\x0b", keyword_match="exact")) == 1
    assert keyword_rows("an alert", keyword_match="exact") == []
    assert len(keyword_rows("STRASSE brennt", trigger_keywords=["straße"])) == 1
    assert keyword_rows("axc", trigger_keywords=["a.c"], keyword_match="substring") == []
    (alert,) = keyword_rows(
        "Zone 12: GAS-17", trigger_keywords=[r"gas-\d+", "^zone", "fire"], keyword_match="regex", keyword_severity={"^zone": "Minor"}
    )
    assert (alert["reasons"], alert["severity"]) == ([r"gas-\d+", "^zone"], "Severe")


@pytest.mark.parametrize("text", ["Straße 7", "STRASSE 7", "stra\u1e9ee 7", "\uff33trasse 7"])
def test_emg_09_letters_of_a_pattern_are_folded_as_those_of_the_text_are(text: str) -> None:
    assert len(keyword_rows(text, trigger_keywords=[r"straße \d", "(?:Ü|ü)ber"], keyword_match="regex")) == 1
    assert keyword_rows("u\u0308ber", trigger_keywords=["(?:o|u\u0308)b"], keyword_match="regex")[0]["reasons"] == ["(?:o|u\u0308)b"]
    assert keyword_rows("a(b", trigger_keywords=["\uff08b"], keyword_match="regex")  # what folds to a bracket stays one, and no group


def test_emg_09_no_pattern_takes_longer_than_its_text() -> None:
    made = emergency(trigger_keywords=["(a+)+$"], keyword_match="regex")
    batch = batch_of([Row(1, "a", 1.0, "a" * 100_000 + "!")] * 10)
    began = time.process_time()
    assert made.apply(batch)["main"].num_rows == 0
    assert time.process_time() - began < 1
    for pattern in ("(a", r"(?=a)a", r"(a)\1"):
        with pytest.raises(Mistakes, match=r"^no regular expression of the kind RE2") as caught:
            emergency(trigger_keywords=["fine", pattern], keyword_match="regex")
        assert caught.value.mistakes[0].path == ("trigger_keywords", 1)


TEXTS = st.text(max_size=12) | st.lists(
    st.sampled_from(["alert", "ALERT", " ", "-", "_", "é", "\ufb01re", "1", "İ", "ß", "."]), max_size=5
).map("".join)


@given(st.lists(st.none() | TEXTS, max_size=12), st.sampled_from(["word", "substring", "exact"]), CUTS)
@settings(max_examples=50, deadline=None)
def test_emg_09_found_is_what_a_search_in_each_single_text_finds(texts: list[str | None], match: str, cuts: list[int]) -> None:
    words = ["ALERT", "fire", "ß", "é."]

    def folded(text: str) -> str:
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())

    def holds(text: str, word: str) -> bool:
        pattern = {"word": r"(?<!\w){}(?!\w)", "substring": "{}", "exact": r"\A\s*{}\s*\Z"}[match].format(re.escape(folded(word)))
        return re.search(pattern, folded(text)) is not None

    rows = [Row(1.0, "a", None, text) for text in texts]
    alerts = run(emergency(trigger_keywords=words, keyword_match=match), rows, cuts, restart=True)
    expected = [(text, [word for word in words if holds(text, word)]) for text in texts if text]
    assert [(one["message"], one["reasons"]) for one in alerts] == [(text, found) for text, found in expected if found]
    assert max(Counter(one["alert_id"] for one in alerts).values(), default=1) == 1


def test_keywords_are_looked_for_in_the_usual_columns_that_hold_text_or_in_those_named() -> None:
    batch = (
        batch_of([Row(1, "alert", 1.0)])
        .append_column("status", pa.array([200]))
        .append_column("anomaly_type", pa.array(["ALERT"]).dictionary_encode())
    )
    assert emergency(trigger_keywords=["alert"]).apply(batch)["main"].column("message").to_pylist() == ["ALERT"]
    named = emergency(trigger_keywords=["alert"], keyword_fields=["sensor_id", "anomaly_type"], key=[])
    assert named.apply(batch)["main"].column("message").to_pylist() == ["alert | ALERT"]


def test_a_table_without_such_columns_is_told_once_and_is_a_mistake_only_if_nothing_else_is_looked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = emergency(trigger_keywords=["alert"], severity_thresholds={"v": 1})
    for _ in range(2):
        made.apply(batch_of([]).drop_columns("message"))
    emergency(trigger_keywords=["alert"], keyword_fields=["note", "message"]).apply(batch_of([]))
    assert [record.message for record in caplog.records] == [
        "no keyword can be found: no column of text is named message, status, alert_type, anomaly_type; set keyword_fields",
        "keywords are not looked for in note: no such column",
    ]
    with pytest.raises(OptionError, match=r"^keyword_fields: no keyword can be found: no column of text is named note; columns are _row,"):
        emergency(trigger_keywords=["x"], keyword_fields=["note"]).apply(batch_of([]))
    with pytest.raises(OptionError, match=r"^keyword_fields\[0\]: column 'v' is double; expected text"):
        emergency(trigger_keywords=["x"], keyword_fields=["v"]).apply(batch_of([]))
