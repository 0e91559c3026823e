"""Which uploader a configuration was of, and what its pipeline becomes."""

from __future__ import annotations

from lakeward.errors import LakewardError
from lakeward_plugins.ops.migrate.cosmos import cosmos
from lakeward_plugins.ops.migrate.draft import Draft, Graph, Node, Options
from lakeward_plugins.ops.migrate.old import Old
from lakeward_plugins.ops.migrate.stages import COLUMNS, STAGES, is_asked_for, selected, transforms
from lakeward_plugins.ops.migrate.targets import ENVIRONMENTAL, TYPES, Target, databricks, delta, s3

DATABASE = "data/sensor_data.db"
IGNORED = {
    "fuzz_factor": ("it made readings noisy at random, so nobody could tell what was measured", "Use gps_fuzz, for positions only."),
    "s3_batch_size_mb": ("one batch is one object", "Set batch.rows so that objects have the size that you want."),
    "enable_auto_detection": ("table and time column are always found by themselves when they are not named", "Nothing to do."),
    "once": ("it is said on the command line", "Run it with --once."),
    "log_level": ("it is said on the command line", "See `lakeward run --help`."),
    "debug": ("it is said on the command line", "See `lakeward run --help`."),
    "databricks_catalog": ("a table has its catalog in its name", "Write catalog.schema.name for `table`."),
}


def migrated(old: Old, system: str | None) -> Draft:
    """The new configuration. Raises LakewardError when it is of none of them."""
    system = system or _system(old)
    source, batch = _source(old), _batch(old)
    if system == "cosmos":
        draft = cosmos(old, source, batch)
    elif system == "environmental":
        draft = _environmental(old, source, batch)
    elif system == "delta" and not old.has("processing_mode"):
        draft = Draft("delta", "to_delta", source, [Graph("main", [], [Node("readings", delta(old)("raw"))])], batch=batch)
    else:
        draft = _by_type(old, system, source, batch)
    _rest(old)
    draft.notes, draft.variables = old.notes, old.secrets
    return draft


def _system(old: Old) -> str:
    more = old.mapping("s3_configuration").get("buckets")
    if {"validated", "anomalies"} & {*old.mapping("s3_buckets"), *(more if isinstance(more, dict) else {})}:
        return "environmental"
    if old.has("databricks_http_path", "databricks_table"):
        return "databricks"
    if old.has("s3_configuration", "s3_bucket_prefix", "s3_buckets"):
        return "s3"
    if old.has("table_path"):
        return "delta"
    if old.has("endpoint", "container", "account_name", "connection_string"):
        return "cosmos"
    raise LakewardError("it is not clear which uploader this was of; say so by --system databricks, s3, delta, cosmos or environmental")


def _source(old: Old) -> Options:
    source: Options = {"use": "sqlite", "path": old.text("sqlite", DATABASE)}
    if old.has("sqlite_table_name"):
        source["table"] = old.text("sqlite_table_name")
    if old.has("timestamp_col"):
        source["timestamp"] = old.text("timestamp_col")
    old.note("state", "where the uploader had got to, a time in its state file, is not looked at: lakeward begins at the first row",
             "To go on behind the last row that the target has: `lakeward position set FILE --to ID --reason WHY`.")  # fmt: skip
    return source


def _batch(old: Old) -> Options:
    rows, wait = old.number("max_batch_size"), old.number("interval")
    return ({"rows": rows} if rows is not None else {}) | ({"wait": wait} if wait is not None else {})


def _by_type(old: Old, system: str, source: Options, batch: Options) -> Draft:
    """One named graph for each pipeline type; `select` says which is active."""
    targets: dict[str, Target] = {}
    if system == "databricks" or old.has("databricks_http_path", "databricks_table"):
        targets["databricks"] = databricks(old)
    block = old.take("s3_configuration")
    if system == "s3" or old.has("s3_configuration", "s3_bucket_prefix", "s3_buckets"):
        if isinstance(block, dict) and str(block.get("enabled", True)).lower() in ("false", "0", "no") and targets:
            old.note("s3_configuration", "it was switched off", "Nothing to do.")
        else:
            targets["s3"] = s3(old, TYPES)
    if old.has("table_path"):
        targets["delta"] = delta(old)
    stages = tuple(stage for stage in STAGES if system != "s3" or stage in TYPES)
    active = selected(old, stages)
    graphs = [_graph(old, stage, targets) for stage in stages if stage == active or is_asked_for(old, stage)]
    if len(graphs) == 1:
        graphs = [Graph("main", graphs[0].transforms, graphs[0].sinks)]
    return Draft(system, f"to_{system}", source, graphs, active, batch)


def _graph(old: Old, stage: str, targets: dict[str, Target]) -> Graph:
    steps = transforms(old, stage)
    if stage == "aggregated" and targets.keys() - {"databricks"}:  # where nothing is replaced, each window comes once, as it did
        steps = [Node(one.name, one.options | {"emit": "on_final"}, one.comment) for one in steps]
    sinks = [Node(stage if len(targets) == 1 else f"{stage}_{name}", target(stage)) for name, target in targets.items()]
    return Graph(stage, steps, sinks)


def _environmental(old: Old, source: Options, batch: Options) -> Draft:
    """All stages at once, each into its bucket."""
    target = s3(old, ENVIRONMENTAL)
    old.take("processing_mode")
    window: Options = {"use": "window", "from": "readings", "emit": "on_final"}
    window |= {"aggregate_config": old.mapping("aggregate_config") or {
        "window_minutes": 5, "group_by": ["sensor_id"], "aggregations": {"temperature": ["mean", "max", "min"], "humidity": ["mean"]},
    }}  # fmt: skip
    steps = [
        Node(
            "checked", {"use": "physics_validation", "profile": "seed"}, "Temperature -20..60, humidity 5..95, pressure 950..1050 hPa, ..."
        ),
        Node("readings", {"use": "schematize", "from": "checked.valid", "missing": "null", "columns": COLUMNS}),
        Node("windows", window),
    ]
    inputs = {
        "raw": "source",
        "validated": "checked.valid",
        "anomalies": "checked.anomalies",
        "schematized": "readings",
        "aggregated": "windows",
    }
    sinks = [Node(stage, {"use": "s3", "from": start, **target(stage)}) for stage, start in inputs.items()]
    old.note("buckets", "those for checkpoints and metadata are of AutoLoader, not of what writes", "Leave them as they are.")
    for key in ("databricks_host", "databricks_token", "databricks_http_path", "databricks_database", "databricks_table"):
        old.drop(key, "AutoLoader and Unity Catalog read the buckets; what writes them needs no workspace", "Leave the notebook as it is.")
    return Draft("environmental", "environmental", source, [Graph("main", steps, sinks)], batch=batch)


def _rest(old: Old) -> None:
    if old.has("state_dir"):
        where = old.take("state_dir")
        old.note("state_dir", "the state lives in .lakeward beside the file", f"For another place, run with --state-dir {where}.")
    for key, (why, todo) in IGNORED.items():
        old.drop(key, why, todo)
    for key in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region", "aws_profile"):
        old.take(key)  # AWS tools find them in the environment
    for key in old.left():
        old.note(key, "no uploader's manual has this key, or it does nothing for this system", "See whether you need it.")
