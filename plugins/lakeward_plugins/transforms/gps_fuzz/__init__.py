"""The transform `gps_fuzz`: exact positions hidden behind noise that sticks, and the command that attacks what comes out.

Each file is one subject, and imports only from those below it. Read from the top; `command` and what is indented tell how well it hides.

    command      `lakeward privacy-report`
      report       the rows before and after, measured and attacked
      attack       what averaging finds out        carried      other columns that tell the position
      theory       how far positions should be from where they were
    transform    the options, and what the kernel calls
    starting     what a person must hear about the options before the first row
    noise        a direction and a distance from a key: the mechanism itself
    cells        places of one size on the Earth: metric, geohash, H3
    positions    latitude and longitude of rows, and what can be wrong with them
    columns      other columns that can tell the position
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakeward_plugins.transforms.gps_fuzz.transform import GpsFuzz

__all__ = ["GpsFuzz"]


def __getattr__(name: str) -> Any:
    """The class loads when somebody wants it: every `lakeward --help` asks this package for its command."""
    if name != "GpsFuzz":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lakeward_plugins.transforms.gps_fuzz.transform import GpsFuzz

    return GpsFuzz
