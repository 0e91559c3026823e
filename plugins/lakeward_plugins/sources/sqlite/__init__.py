"""The source `sqlite`: rows of a table that somebody else is writing.

Each file is one subject, and imports only from those below it. Read from the top; what is indented is for hard days only.

    source       the options, and what the kernel calls
    files        many databases as one source            pattern      which files a path with stars means
    database     one file: a batch is one transaction
    byid         in the order of the key                 bytime       in the order of a time column
      guard        is it still the table that was read?    bookmark     the position of `byid`, with digests of rows
      salvage      what can be read of damaged pages       fingerprint  digests of rows
    batch        rows with exact types, and those that have none
    catalog      which table is meant                    table        a table in SQL
    opening      in its place, frozen, or as a copy      connection   one read-only transaction
"""

from lakeward_plugins.sources.sqlite.source import SqliteSource

__all__ = ["SqliteSource"]
