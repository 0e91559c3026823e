"""The sources."""

from lakeward import Component, hookimpl

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components() -> list[Component]:
    """Announce the sources."""
    at = "lakeward_plugins.sources"
    return [
        Component("source", "sqlite", f"{at}.sqlite:SqliteSource", "Rows of a SQLite table, as a sensor writes them."),
        Component("source", "parquet", f"{at}.parquet:ParquetSource", "Rows of Parquet files in a folder, for backfills and replays."),
    ]
