from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import attrs
import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.cli.logs import RedactingFormatter, _JsonLines
from lakeward.options import option
from lakeward.secrets import Secret, redact

VALUE = 'p@ss/w0rd+with "quotes" \\ and ümläut\n2nd line'


@define
class Component:
    url: str = option("https://host", help="Where.")
    token: Secret | None = option(None, help="Who.")


@pytest.fixture
def secret() -> Secret:
    return Secret(VALUE, "env:TOKEN")


SHOWN: list[Callable[[Secret], str]] = [
    repr, str, ascii, format, "{}".format, "%s".__mod__, "%r".__mod__,
    lambda secret: f"{secret} {secret!r} {secret!s}",
    lambda secret: repr([secret, {"a": secret}]),
    lambda secret: repr(Component(token=secret)),
    lambda secret: str(attrs.asdict(Component(token=secret))),
    lambda secret: json.dumps({"a": secret}, default=str),
    lambda secret: str(dir(secret)),
]  # fmt: skip


@pytest.mark.parametrize("show", SHOWN)
def test_no_way_to_show_a_secret_shows_its_value(secret: Secret, show: Callable[[Secret], str]) -> None:
    assert "w0rd" not in show(secret)


LEAKS: list[Callable[[Any], object]] = [
    pickle.dumps, json.dumps, copy.copy, copy.deepcopy, vars, iter, len, bytes,
    lambda secret: secret + "",
    lambda secret: "" + secret,
    lambda secret: "".join([secret]),
    lambda secret: secret[0],
    lambda secret: f"{secret:>50}",
    lambda secret: copy.deepcopy(Component(token=secret)),
    lambda secret: pickle.dumps(Component(token=secret)),
]  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_what_would_carry_a_secret_away_fails_without_showing_it(secret: Secret, leak: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        leak(secret)
    assert "w0rd" not in str(caught.value)


def test_the_value_is_there_for_who_asks(secret: Secret) -> None:
    assert secret.reveal() == VALUE
    assert repr(secret) == "Secret(env:TOKEN)"


def test_equal_secrets_are_one_in_a_set() -> None:
    assert len({Secret("same-value", "env:A"), Secret("same-value", "env:B"), Secret("other-value", "env:A")}) == 2
    assert Secret("same-value", "env:A") != "same-value"


FORMS: list[Callable[[str], str]] = [
    str, repr, json.dumps, quote, quote_plus,
    lambda text: quote(text, safe=""),
    lambda text: urlencode({"a": text}),
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: json.dumps({"message": repr(text)}, ensure_ascii=False),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    lambda text: str(KeyError(text)),
    lambda text: repr(f"""it's "{text}" """),
    lambda text: f"https://user:{quote(text)}@host/{text}",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_redact_masks_every_form_of_a_value(secret: Secret, form: Callable[[str], str]) -> None:
    masked = redact(f"before {form(secret.reveal())} after")
    assert "***" in masked
    assert "w0rd" not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@given(st.text(min_size=4, max_size=20).filter(lambda text: "*" not in text and text.strip() == text), st.sampled_from(FORMS))
@settings(max_examples=100, deadline=None)
def test_redact_masks_every_value(value: str, form: Callable[[str], str]) -> None:
    Secret(value, "env:X")
    shown = form(value)
    assert shown not in redact(shown)


def test_a_value_that_is_not_unicode_is_a_secret_too() -> None:
    value = b"caf\xe9-token".decode(errors="surrogateescape")  # as the environment gives it
    Secret(value, "env:X")
    assert redact(f"{value!r} {value}") == "'***' ***"


def test_of_two_values_the_longer_is_masked_whole() -> None:
    Secret("abcdefgh", "env:SHORT"), Secret("abcdefgh-and-more", "env:LONG")
    assert redact("x abcdefgh-and-more y abcdefgh") == "x *** y ***"


def test_a_very_short_value_is_left_because_masking_it_would_garble_everything() -> None:
    Secret("Qz", "env:X")
    assert redact("a Qz b") == "a Qz b"


@pytest.mark.parametrize("inner", [logging.Formatter("%(levelname)s %(message)s"), _JsonLines()])
def test_the_formatter_cleans_message_arguments_exception_and_fields(secret: Secret, inner: logging.Formatter) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(inner))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.error(f"in the message {VALUE}")
    log.error("in the arguments %s %r %s", VALUE, VALUE, {"a": VALUE})
    log.error("in fields", extra={"event": "x", "fields": {"url": f"https://{quote(VALUE, safe='')}@host"}})
    try:
        try:
            raise KeyError(VALUE)
        except KeyError as error:
            raise ValueError(f"refused {VALUE!r}") from error
    except ValueError:
        log.exception("with an exception")
    written = stream.getvalue()
    assert "refused" in written
    assert "with an exception" in written
    assert "w0rd" not in written


def test_a_traceback_of_ours_can_be_cleaned(secret: Secret) -> None:
    try:
        raise RuntimeError(f"token {secret.reveal()}")
    except RuntimeError:
        shown = "".join(traceback.format_exception(*sys.exc_info()))
    assert "w0rd" in shown
    assert "w0rd" not in redact(shown)
