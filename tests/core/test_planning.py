"""How nodes become components: options in a block, secrets that are looked for, and where mistakes are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from lakeward.config import load
from lakeward.errors import ConfigError
from lakeward.planning import plan
from lakeward.plugins import load_plugins

PLUGIN = '''
from typing import ClassVar
import pyarrow as pa
from attrs import define
from lakeward import Component, Encoding, OptionError, hookimpl, option
from lakeward.secrets import Secret, SecretReference

LAKEWARD_API = (1, 0)
asked = []

@hookimpl
def lakeward_components():
    pairs = {"source": "Nothing", "transform": "Old", "sink": "Sink"}
    return [Component(kind, name.lower(), f"planned:{name}", "x") for kind, name in pairs.items()]

@hookimpl
def lakeward_resolve_secret(scheme, ref):
    asked.append(ref)
    if ref == "absent":
        raise OptionError("", "there is nothing here")
    return Secret(f"found {ref}", ref) if scheme == "here" else None

@define
class Nothing:
    def schema(self):
        return pa.schema([("_row", pa.int64()), ("temperature", pa.float64())])
    def read(self, after, limit):
        return iter(())
    def close(self): ...

@define
class Sink:
    encoding: ClassVar = Encoding()
    def deliver(self, parcel): ...
    def close(self): ...

@define
class Old:
    """Takes its options in a block as well, as old configurations have them."""
    ports: ClassVar = ("main",)
    row_wise: ClassVar = True
    block: ClassVar = "old_config"
    limit: float = option(1.0, help="A number.", maximum=10)
    column: str = option("temperature", help="A column.")
    deep: dict[str, float] = option(factory=dict, help="A mapping.")
    key: Secret = option(SecretReference("here", "REF"), help="A secret.")
    def apply(self, batch):
        if self.column not in batch.schema.names:
            raise OptionError("column", f"no column {self.column!r}")
        return batch
'''


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The transform that becomes of these options; `ref` is the secret that its class looks for by itself."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(options: str, ref: str = "token") -> Any:
        sys.modules.pop("planned", None)
        (tmp_path / "planned.py").write_text(PLUGIN.replace("REF", ref))
        (tmp_path / "p.yaml").write_text(
            f"name: p\nsource: {{use: nothing}}\ntransforms:\n  old: {{use: old{options}}}\nsinks: {{out: {{use: sink}}}}\n"
        )
        return plan(load(tmp_path / "p.yaml"), load_plugins(entries=[EntryPoint("planned", "planned", "lakeward")])).steps[0].transform

    return run


@pytest.mark.parametrize(
    "options",
    [
        ", limit: 3, deep: {a: 1}",
        ", old_config: {limit: 3, deep: {a: 1}}",
        ", limit: 3, old_config: {deep: {a: 1}}",
        """, old_config: '{"limit": 3, "deep": {"a": 1}}'""",
        """, limit: 3, old_config: {deep: '{"a": 1}'}""",
    ],
)
def test_options_stand_beside_use_or_in_the_block_of_the_class(planned: Any, options: str) -> None:
    transform = planned(options)
    assert (transform.limit, transform.deep, transform.column) == (3.0, {"a": 1.0}, "temperature")


def test_an_empty_block_is_none(planned: Any) -> None:
    assert planned(", old_config: null").limit == 1.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (", old_config: {limit: 11}", r"p.yaml:4:39: transforms.old.old_config.limit: expected at most 10, got 11"),
        (", old_config: {lim: 1}", r"p.yaml:4:32: transforms.old.old_config.lim: unknown option, did you mean 'limit'\?"),
        (", old_config: {deep: {a: x}}", r"p.yaml:4:42: transforms.old.old_config.deep.a: expected a number, got text"),
        (", old_config: {column: gone}", r"p.yaml:4:40: transforms.old.old_config.column: no column 'gone'"),
        (", limit: 1, old_config: {limit: 1}", r"p.yaml:4:\d+: transforms.old.*limit: stands in old_config too; write it once"),
        (", limit: 11, old_config: {column: limit}", r"p.yaml:4:26: transforms.old.limit: expected at most 10, got 11"),
        (", old_config: .inf", r"p.yaml:4:31: transforms.old.old_config: expected a mapping, got a number"),
        (", old_config: [1]", r"p.yaml:4:31: transforms.old.old_config: expected a mapping, got a list"),
        (""", old_config: '{"limit": 11}'""", r"p.yaml:4:31: transforms.old.old_config.limit: expected at most 10, got 11"),
        (""", old_config: '{"limit": 11'""", r"p.yaml:4:31: transforms.old.old_config: expected a mapping, got text that is no JSON"),
        (", old_config: {key: '${here:absent}'}", r"transforms.old.old_config.key: there is nothing here"),
        (", key: {secret: TOKEN_2}", r"transforms.old.key: no plugin that is ready knows secrets of the kind \$\{env:...\}"),
        (", old_config: {key: {secret: hunter2}}", r"transforms.old.old_config.key: is a secret: do not write it here"),
        (", key: {secret: TOKEN_2, more: 1}", r"transforms.old.key: is a secret: do not write it here"),
        (", deep: {secret: TOKEN_2}", r"transforms.old.deep.secret: expected a number, got text"),
        (", key: '${there:x}'", r"transforms.old.key: no plugin that is ready knows secrets of the kind \$\{there:...\}"),
    ],
)
def test_mistakes_are_shown_where_they_were_written(planned: Any, options: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        planned(options)


def test_a_secret_that_the_class_looks_for_is_found_unless_another_is_given(planned: Any) -> None:
    assert planned("").key.reveal() == "found token"
    assert planned(", old_config: {key: '${here:mine}'}").key.reveal() == "found mine"


def test_a_secret_that_is_not_needed_is_not_asked_for(planned: Any) -> None:
    planned(", key: '${here:mine}'")
    assert sys.modules["planned"].asked == ["mine"]


def test_a_class_finds_the_reference_when_there_is_no_secret(planned: Any) -> None:
    assert str(planned("", ref="absent").key) == "${here:absent}"
