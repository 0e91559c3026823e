"""The transforms."""

import click

from lakeward import Component, hookimpl
from lakeward_plugins.transforms.gps_fuzz.command import privacy_report

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components() -> list[Component]:
    """Announce the transforms."""
    at = "lakeward_plugins.transforms"
    return [
        Component(
            "transform",
            "physics_validation",
            f"{at}.physics_validation:PhysicsValidation",
            "Check readings against physical limits.",
        ),
        Component("transform", "gps_fuzz", f"{at}.gps_fuzz:GpsFuzz", "Hide exact positions behind keyed, sticky noise."),
        Component("transform", "emergency", f"{at}.emergency:Emergency", "Raise alerts on keywords and thresholds."),
        Component("transform", "window", f"{at}.window:Window", "Aggregate fields over windows of event time."),
        Component("transform", "schematize", f"{at}.schematize:Schematize", "Enforce a declared schema."),
        Component("transform", "filter", f"{at}.filter:Filter", "Keep the rows that meet named rules; count the rest."),
        Component("transform", "sql", f"{at}.sql:Sql", "Compute columns and remove rows with a SELECT of DuckDB.", "lakeward[duckdb]"),
        Component("transform", "sql_batch", f"{at}.sql:SqlBatch", "Run a SELECT of DuckDB over each batch as a whole.", "lakeward[duckdb]"),
    ]


@hookimpl
def lakeward_commands() -> list[click.Command]:
    """`lakeward privacy-report`."""
    return [privacy_report]
