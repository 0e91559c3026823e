"""Options that several commands share, and where the state of a pipeline lives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakeward.errors import LakewardError

if TYPE_CHECKING:  # `lakeward --help` must not pay for YAML and cattrs
    from lakeward.config import Config


class Folder(click.Path):
    """A path that is not empty: `--state-dir "$FOLDER"` of a variable that is not set would be the folder where one stands."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Path` does."""
        if value == "":
            self.fail("is empty; name a folder", param, ctx)
        return super().convert(value, param, ctx)


pipeline_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
state_dir_option = click.option(
    "--state-dir", type=Folder(path_type=Path), help="Where the state lives [default: .lakeward/NAME beside FILE]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
select_option = click.option("--select", metavar="NAME", help="Which of several named graphs to use.")


def set_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--set path.to.key=value`, again and again."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override one value of FILE, such as batch.rows=1000."
    )(function)


def state_dir_of(file: Path, state_dir: Path | None) -> Path:
    """The state directory of a pipeline file."""
    if state_dir:
        return state_dir
    from lakeward.config import load

    return config_state_dir(load(file), None)


def config_state_dir(config: Config, state_dir: Path | None) -> Path:
    """The state directory of a loaded configuration."""
    return state_dir or config.folder / ".lakeward" / config.name


def found_states(folder: Path) -> list[Path]:
    """Every state directory in `.lakeward` of a folder."""
    states = sorted(path.parent for path in (folder / ".lakeward").glob("*/state.db"))
    if not states:
        raise LakewardError(f"no pipeline has run in {folder.resolve()}; name its YAML file, or give --state-dir")
    return states
