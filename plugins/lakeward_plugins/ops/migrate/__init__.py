"""`lakeward migrate`: old configurations of five uploaders, written anew for lakeward.

Each file is one subject, and imports only from those below it. Read from the top.

    command      what the command line says; looks at the old configuration when it runs
    systems      which uploader it was of, and what its pipeline becomes
    cosmos       sensors of cities into Cosmos DB, with an archive
    targets      Databricks, S3 by pipeline type, a Delta table: where the rows of a stage went
    stages       raw, schematized, filtered, aggregated, emergency; and validated, anomalies: what was done to rows
    old          the old configuration: keys and variables, what is taken, what is left over
    draft        the new one, with its comments, as YAML
"""

from lakeward_plugins.ops.migrate.command import LAKEWARD_API, lakeward_commands

__all__ = ["LAKEWARD_API", "lakeward_commands"]
