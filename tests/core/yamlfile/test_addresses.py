from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define

from lakeward.options import Address, option, type_words
from lakeward.yamlfile.build import Mistakes, build


@define
class Place:
    path: Address = option(help="Where.")


def test_a_path_is_made_absolute_and_a_url_is_left_as_it_is():
    assert build(Place, {"path": "lake/raw"}, Path("/etc/lake")).path == "/etc/lake/lake/raw"
    assert build(Place, {"path": "/lake/raw"}, Path("/etc/lake")).path == "/lake/raw"
    assert build(Place, {"path": "s3://lake/raw"}, Path("/etc/lake")).path == "s3://lake/raw"
    assert type_words(Address) == "a path or a URL"


def test_anything_else_is_a_mistake():
    with pytest.raises(Mistakes) as caught:
        build(Place, {"path": 7}, Path("/etc"))
    assert [one.message for one in caught.value.mistakes] == ["expected a path, got a whole number (7)"]
