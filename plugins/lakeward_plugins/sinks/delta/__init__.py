"""The sink `delta`: rows into a Delta Lake table, in a folder or in S3.

Each file is one subject, and imports only from those below it. Read from the top.

    sink        the options, and what the kernel calls: each parcel is one commit with a note that it is in
    upkeep      what keeps commits cheap: small files made into large ones, files that nobody needs removed
    compaction  many files made into few
    shipping    the spooled file itself as a data file           merging    rows that replace older ones, by key
    fitting     types of the rows, and of the table              place      where the table is: files, syncs, errors
    tail        a commit to a local log in one file           store      a table in S3
    notes       that a parcel is in
"""

from lakeward_plugins.sinks.delta.sink import DeltaSink

__all__ = ["DeltaSink"]
