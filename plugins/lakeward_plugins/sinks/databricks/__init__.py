"""The sink `databricks`: rows into a table of a Databricks SQL warehouse, each exactly once.

Each file is one subject, and imports only from those below it.

    sink        the options, and what the kernel calls
    statements  the SQL that takes the rows, and why a second time changes nothing
    rows        the rows as a file that the warehouse can read, or as parameters
    volume      the folder in which files wait         sent        names of parcels, and those that the table has
    table       what the table has, and whether the rows fit
    warehouse   one connection                         troubles    errors of the client library, as what the kernel knows
    reading     whether a query only reads
    types       Arrow types as those of Databricks     names       names in SQL
"""

from lakeward_plugins.sinks.databricks.sink import DatabricksSink

__all__ = ["DatabricksSink"]
