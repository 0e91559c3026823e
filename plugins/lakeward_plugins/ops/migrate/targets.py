"""Where the rows of a stage went: a table of Databricks, a bucket, a Delta table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lakeward_plugins.ops.migrate.draft import Options
from lakeward_plugins.ops.migrate.old import Old

Target = Callable[[str], Options]
"""From the name of a stage to a sink."""
NUMBERS = {"raw": 0, "schematized": 1, "filtered": 2, "aggregated": 3, "emergency": 4}
TYPES = ("raw", "schematized", "aggregated", "emergency")
ENVIRONMENTAL = ("raw", "validated", "anomalies", "schematized", "aggregated")
COMPRESSIONS = ("snappy", "zstd", "gzip", "none")
STAMP = "databricks_inserted_at"


def databricks(old: Old) -> Target:
    """Tables `<database>.<table>_<n>_<type>` of one warehouse."""
    place = {"host": old.text("databricks_host"), "http_path": old.text("databricks_http_path")}
    database, table, token = (
        old.text("databricks_database"),
        old.text("databricks_table"),
        old.secret("databricks_token", "DATABRICKS_TOKEN"),
    )
    old.note("databricks_table", "the uploader sent INSERT statements, whose rows are there twice when an answer is lost. `mode: insert` "
             "sends each row once, but few at a time, and needs a column for that",
             "Run the ALTER TABLE that `lakeward doctor` prints, or `lakeward ddl` for new tables; for many rows, name a volume: "
             "`mode: copy`, `volume: catalog.schema.volume`.")  # fmt: skip

    def sink(stage: str) -> Options:
        if stage in ("aggregated", "emergency"):
            old.note(f"..._{NUMBERS[stage]}_{stage}", "the columns of windows and alerts are others than in the uploader's table",
                     f"`lakeward ddl --select {stage}` prints the statement for a new table; schematize renames columns.")  # fmt: skip
        options: Options = {"use": "databricks", **place, "token": token, "table": f"{database}.{table}_{NUMBERS[stage]}_{stage}"}
        if stage == "aggregated":
            options |= {"mode": "merge", "upsert_by": ["window_id"], "revision": "revision"}
        else:
            options |= {"mode": "insert"}
        return options | {"inserted_at": STAMP}

    return sink


def s3(old: Old, stages: tuple[str, ...]) -> Target:
    """One bucket for each pipeline type."""
    block = old.mapping("s3_configuration")
    for name in block:
        if name not in ("enabled", "region", "prefix", "buckets"):
            old.note(f"s3_configuration.{name}", "lakeward has no such option", "See the manual page of the sink s3.")
    if block.get("buckets") and not isinstance(block["buckets"], Mapping):
        old.note("s3_configuration.buckets", "it is no mapping", "Write the name of each bucket into the new file by hand.")
    buckets = {**_mapping(block.get("buckets")), **_mapping(old.mapping("s3_buckets"))}
    prefix, region = _either(old, "s3_bucket_prefix", block.get("prefix")), _either(old, "s3_region", block.get("region"))
    region = region or old.text("aws_region")
    if not prefix and "raw" not in buckets:
        prefix = old.text("s3_bucket_prefix")
    compression = str(old.take("s3_compression") or "snappy").lower()
    if compression not in COMPRESSIONS:
        old.note("s3_compression", f"{compression} is none that lakeward writes", "It is snappy now; choose of snappy, zstd, gzip, none.")
        compression = "snappy"
    more = _credentials(old)
    if old.has("endpoint_url"):
        more["endpoint_url"] = old.text("endpoint_url")
    shape = "{prefix}-{stage}-data-{region}" if stages == ENVIRONMENTAL else "{prefix}-databricks-{stage}-{region}"

    def sink(stage: str) -> Options:
        made = shape.replace("{prefix}", prefix).replace("{stage}", stage).replace("{region}", region)
        if stage not in buckets and stage not in stages:
            old.note(f"s3_configuration.buckets.{stage}", "the uploader had no bucket for it", f"Correct `bucket` of the sink {stage}.")
        bucket = str(buckets.get(stage, made))
        return {"use": "s3", "bucket": bucket, "prefix": stage, "region": region, **more, "compression": compression}

    return sink


def delta(old: Old) -> Target:
    """One Delta table."""
    path = old.text("table_path")
    more: Options = {}
    if "s3://" in path or "s3a://" in path:
        path = path.replace("s3a://", "s3://")
        more = {"region": old.text("aws_region")} if old.has("aws_region") else {}
        more |= _credentials(old)
        if old.has("endpoint_url"):
            more["endpoint_url"] = old.text("endpoint_url")
    elif "://" in path:
        old.note("table_path", "lakeward writes Delta tables into folders and S3, not there",
                 "Choose a folder or a bucket, or the sink databricks, and have the table read from there.")  # fmt: skip

    def sink(stage: str) -> Options:
        return {"use": "delta", "path": path, **more}

    return sink


def _credentials(old: Old) -> Options:
    """What AWS tools find by themselves is not written down; a profile is."""
    keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    if any(old.has(key) for key in keys):
        for key in keys:
            old.take(key)
        old.note("aws_access_key_id", "credentials are not copied; lakeward looks where AWS tools look",
                 "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, and take them out of the old file.")  # fmt: skip
    if old.has("aws_profile"):
        profile = old.take("aws_profile")
        old.note("aws_profile", "a profile is a matter of the environment", f"Set AWS_PROFILE={profile} where lakeward runs.")
    return {}


def _either(old: Old, key: str, in_block: object) -> str:
    """The variable, or the key at the top, or that in the block."""
    if old.has(key):
        return old.text(key)
    return "" if in_block is None else str(in_block)


def _mapping(value: object) -> dict[str, object]:
    return {str(key): one for key, one in value.items() if one} if isinstance(value, Mapping) else {}
