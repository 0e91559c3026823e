"""The transforms `sql` and `sql_batch`: one SELECT of DuckDB over each batch.

Each file is one subject, and imports only from those below it.

    transform    the two classes: where each row went, and which rows a query fails on
    statement    what a query may say: a list of what is allowed, looked up in its syntax tree
    session      a DuckDB in memory that can reach nothing but the rows that it is given
"""

from lakeward_plugins.transforms.sql.transform import Sql, SqlBatch

__all__ = ["Sql", "SqlBatch"]
