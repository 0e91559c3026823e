"""The source `sqlite`. Read `source` first: it shows how a batch comes out of a file that somebody else is writing."""

from lakeward_plugins.sources.sqlite.source import SqliteSource

__all__ = ["SqliteSource"]
