"""Databricks SQL as DuckDB's, and DuckDB's types and errors as those of Databricks."""

from __future__ import annotations

import re

import duckdb
import sqlglot
from attrs import frozen
from sqlglot import exp

from warehouse.rules import SqlError

WORDS = {
    "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "tinyint": "tinyint", "smallint": "smallint",
    "integer": "int", "bigint": "bigint", "float": "float", "double": "double", "boolean": "boolean", "varchar": "string", "blob": "binary",
    "date": "date", "timestamp": "timestamp_ntz", "timestamp with time zone": "timestamp",
}  # fmt: skip
FILE = re.compile(r"parquet\.`(/Volumes/[^`]+)`", re.IGNORECASE)
UNKNOWN = re.compile(r"(Table|Schema|Catalog) with name \"?([^\"\s!]+)|(?:column|Column)[^\"]*\"([^\"]+)\"")


@frozen
class Table:
    """A name in three parts."""

    catalog: str
    schema: str
    name: str

    @property
    def plain(self) -> str:
        return f"{self.catalog}.{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return ".".join(f'"{part.replace(chr(34), chr(34) * 2)}"' for part in (self.catalog, self.schema, self.name))


def parse(sql: str) -> exp.Expression:
    """The tree of one statement."""
    try:
        trees = [tree for tree in sqlglot.parse(sql, read="databricks") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise SqlError("PARSE_SYNTAX_ERROR", f"Syntax error: {str(error).splitlines()[0]}.", "42601") from error
    if len(trees) != 1 or isinstance(trees[0], exp.Command):
        raise SqlError("PARSE_SYNTAX_ERROR", "Syntax error: one statement of a known kind is expected.", "42601")
    return trees[0]


def tables(tree: exp.Expression, catalog: str, schema: str) -> list[Table]:
    """All that are named, in full; names of common table expressions are none."""
    own = {one.alias for one in tree.find_all(exp.CTE)}
    named = [one for one in tree.find_all(exp.Table) if one.name and isinstance(one.this, exp.Identifier) and one.name not in own]
    return [Table(one.catalog or catalog, one.db or schema, one.name) for one in named]


def for_duckdb(tree: exp.Expression) -> list[str]:
    """The statements that do the same."""
    tree = tree.transform(_without_from_json)
    if isinstance(tree, exp.Create):
        tree.set("properties", None)  # USING DELTA, TBLPROPERTIES, CLUSTER BY: how a table is stored
        for column in tree.find_all(exp.ColumnDef):
            kept = [one for one in column.args.get("constraints") or [] if not isinstance(one.kind, exp.CommentColumnConstraint)]
            column.set("constraints", kept)
    if isinstance(tree, exp.Merge):
        for update in tree.find_all(exp.Update):  # DuckDB wants bare names on the left
            for change in update.expressions:
                if isinstance(change, exp.EQ) and isinstance(change.this, exp.Column):
                    change.set("this", exp.column(change.this.this.copy()))
    if isinstance(tree, exp.Alter):
        head = f"ALTER TABLE {tree.this.sql('duckdb')}"
        added = [one for one in tree.find_all(exp.ColumnDef) if not one.find_ancestor(exp.DataType)]  # fields of structs look the same
        return [f"{head} ADD COLUMN {column.sql('duckdb')}" for column in added]
    return [tree.sql("duckdb")]


def _without_from_json(node: exp.Expression) -> exp.Expression:
    """from_json(text, 'ARRAY<STRING>', options) is a cast of JSON."""
    if isinstance(node, exp.FromJson):
        return exp.cast(exp.cast(node.this, "JSON"), exp.DataType.build(node.expression.name, dialect="databricks"))
    return node


def type_name(kind: str) -> str:
    """What DESCRIBE says of a type that DuckDB names so."""
    return _of(exp.DataType.build(kind, dialect="duckdb"))


def _of(kind: exp.DataType) -> str:
    names = {
        exp.DType.TIMESTAMPTZ: "timestamp",
        exp.DType.TIMESTAMP: "timestamp_ntz",
        exp.DType.VARBINARY: "binary",
        exp.DType.TEXT: "string",
    }
    if kind.this in names:
        return names[kind.this]
    inner = kind.expressions
    if kind.this in (exp.DType.ARRAY, exp.DType.LIST):
        return f"array<{_of(inner[0])}>"
    if kind.this == exp.DType.MAP:
        return f"map<{_of(inner[0])},{_of(inner[1])}>"
    if kind.this == exp.DType.STRUCT:
        fields = [f"{one.name}:{_of(one.args['kind'])}" for one in inner]
        return f"struct<{','.join(fields)}>"
    return kind.sql("databricks").lower().replace(" ", "")


def told(error: duckdb.Error) -> SqlError:
    """The error of the engine, as a warehouse says it."""
    text = str(error).splitlines()[0]
    found = UNKNOWN.search(str(error))
    name = next(filter(None, found.groups()[1:]), "") if found else ""
    if isinstance(error, duckdb.CatalogException) and "already exists" in text and "Column" not in text:
        return SqlError("TABLE_OR_VIEW_ALREADY_EXISTS", f"Cannot create: {text}", "42P07")
    if "Schema with name" in text:
        return SqlError("SCHEMA_NOT_FOUND", f"The schema `{name}` cannot be found.", "42704")
    if isinstance(error, duckdb.CatalogException) and "column" in text.lower():
        return SqlError("FIELD_ALREADY_EXISTS", f"Cannot add column: {text}", "42710")
    if isinstance(error, duckdb.CatalogException):
        return SqlError("TABLE_OR_VIEW_NOT_FOUND", f"The table or view `{name}` cannot be found.", "42P01")
    if isinstance(error, duckdb.BinderException):
        return SqlError("UNRESOLVED_COLUMN.WITH_SUGGESTION", f"A column with name `{name}` cannot be resolved. {text}", "42703")
    if isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException)):
        overflow = "out of range" in text
        return SqlError(*("CAST_OVERFLOW", text, "22003") if overflow else ("CAST_INVALID_INPUT", text, "22018"))
    if isinstance(error, duckdb.ConstraintException):
        none = "NOT NULL" in text
        return SqlError(
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED" if none else "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES", text, "23502" if none else "23001"
        )
    if isinstance(error, duckdb.ParserException):
        return SqlError("PARSE_SYNTAX_ERROR", text, "42601")
    return SqlError("INTERNAL_ERROR", text, "XX000")
