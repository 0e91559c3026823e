"""A lakeward transform that adds the H3 cell of a position."""

from lakeward import Component, hookimpl

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components() -> list[Component]:
    """Announce the transform `h3`."""
    return [Component("transform", "h3", "lakeward_h3.transform:H3", "Add the H3 cell of a position, or replace the position by it.")]
