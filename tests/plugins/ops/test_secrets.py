from pathlib import Path

import pytest

from lakeward import OptionError
from lakeward.secrets import redact
from lakeward.testing import PluginContract
from lakeward_plugins.ops.secrets import MAX_BYTES, lakeward_resolve_secret


class TestSecretsContract(PluginContract):
    module = "lakeward_plugins.ops.secrets"


def revealed(scheme: str, ref: object) -> str:
    secret = lakeward_resolve_secret(scheme, str(ref))
    assert secret is not None
    return secret.reveal()


def refusal(scheme: str, ref: object) -> OptionError:
    with pytest.raises(OptionError) as caught:
        lakeward_resolve_secret(scheme, str(ref))
    return caught.value


def test_takes_an_environment_variable_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_TOKEN", " dapi-12345\n")
    assert revealed("env", "LAKE_TOKEN") == " dapi-12345\n"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_TOKEN", raising=False)
    assert str(refusal("env", "LAKE_TOKEN")) == "environment variable LAKE_TOKEN is not set"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_TOKEN", "")
    assert str(refusal("env", "LAKE_TOKEN")) == "environment variable LAKE_TOKEN is not set (it is empty)"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("hunter22", "hunter22"),
        ("hunter22\n", "hunter22"),
        ("hunter22\r\n", "hunter22"),
        ("two\nlines\n\n", "two\nlines\n"),
        (" hä \n", " hä "),
    ],
)
def test_strips_one_newline_from_a_file_and_nothing_else(tmp_path: Path, content: str, value: str) -> None:
    (tmp_path / "key").write_bytes(content.encode())
    assert revealed("file", tmp_path / "key") == value


def test_a_carriage_return_without_newline_belongs_to_the_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"hunter22\r")
    assert revealed("file", tmp_path / "key") == "hunter22\r"


def test_says_why_a_file_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"se\xffcret")
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    assert "No such file" in str(refusal("file", tmp_path / "absent"))
    assert "Is a directory" in str(refusal("file", tmp_path))
    assert "is empty" in str(refusal("file", tmp_path / "empty"))
    assert "larger than 64 KiB" in str(refusal("file", tmp_path / "large"))
    assert "absolute path" in str(refusal("file", "secrets/key"))
    assert "null byte" in str(refusal("file", "/run/\0"))
    not_text = refusal("file", tmp_path / "binary")
    assert "UTF-8" in str(not_text)
    assert not_text.__cause__ is None
    assert not_text.__suppress_context__


def test_leaves_other_schemes_to_other_plugins() -> None:
    assert lakeward_resolve_secret("vault", "key") is None


def test_what_it_gave_is_masked_in_texts_and_unseen_in_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_TOKEN", "dapi-98765")
    secret = lakeward_resolve_secret("env", "LAKE_TOKEN")
    assert repr(secret) == "Secret(env:LAKE_TOKEN)"
    assert redact("token dapi-98765 refused") == "token *** refused"


def test_a_file_is_read_again_each_time_and_what_it_held_stays_masked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the first one\n")
    secret = lakeward_resolve_secret("file", str(tmp_path / "key"))
    assert secret is not None
    (tmp_path / "key").write_text("the second one\n")
    assert secret.reveal() == "the second one"
    assert redact("the first one, the second one") == "***, ***"
    (tmp_path / "key").unlink()
    assert secret.reveal() == "the first one"
    assert "one" not in repr(secret)
