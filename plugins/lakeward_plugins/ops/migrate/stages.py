"""What the old uploaders did to rows, by pipeline type, as transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakeward_plugins.ops.migrate.draft import Node, Options
from lakeward_plugins.ops.migrate.old import Old

COLUMNS: Options = {
    "reading_id": {"type": "bigint", "source": "id"}, "sensor_id": "text", "timestamp": "timestamp", "temperature": "double",
    "humidity": "double", "pressure": "double", "vibration": "double", "voltage": "double", "status_code": "int", "anomaly_flag": "int",
    "anomaly_type": "text", "firmware_version": "text", "model": "text", "manufacturer": "text", "location": "text", "latitude": "double",
    "longitude": "double", "original_timezone": "text", "synced": "int",
}  # fmt: skip
"""Of the tables `..._1_schematized`."""
KEYWORDS = ["EMERGENCY", "CRITICAL", "ALERT"]
LIMITS = {"temperature": 35, "pressure": 1030}
STAGES = ("raw", "schematized", "filtered", "aggregated", "emergency")
MODES = {"sanitized": "filtered", "aggregated": "emergency"}
"""Old processing modes, and the pipeline that the uploaders themselves made of them."""


def selected(old: Old, known: tuple[str, ...] = STAGES) -> str:
    """The stage that was active."""
    mode = str(old.take("processing_mode") or "").strip().lower()
    switches = {"enable_aggregate": "emergency", "enable_filter": "filtered", "enable_sanitize": "schematized"}
    on = [stage for key, stage in switches.items() if old.flag(key)]
    if not mode and on:
        also = f"; {', '.join(on[1:])} {'is' if len(on) == 2 else 'are'} beside it" if on[1:] else ""
        old.note("enable_...", f"what was switched on is the pipeline {on[0]} now, as the uploader did{also}", "See `select`.")
        mode = on[0]
    if mode in MODES and (mode not in known or "filtered" in known):
        todo = "For windows write `select: aggregated`." if mode == "aggregated" else "See `select`."
        old.note("processing_mode", f"{mode} is the pipeline {MODES[mode]}, as the uploader had it", todo)
        mode = MODES[mode]
    if mode and mode not in known:
        old.note("processing_mode", f"there is no pipeline {mode!r}", f"Choose one of {', '.join(known)} for `select`.")
        mode = ""
    if not mode:
        old.note("select", "which pipeline was active stood in the sensor's database (pipeline_config), which is not looked into",
                 f"Correct `select`: {', '.join(known)}.")  # fmt: skip
    return mode or "raw"


def transforms(old: Old, stage: str) -> list[Node]:
    """What is done to the rows of a stage."""
    if stage == "schematized":
        return [*_cleaned(old, only_nulls=True), _schema()]
    if stage == "filtered":
        return [*_cleaned(old, only_nulls=False), *_private(old)]
    if stage == "aggregated":
        return [*_windows(old)]
    return [*_alerts(old)] if stage == "emergency" else []


def is_asked_for(old: Old, stage: str) -> bool:
    """Whether the old configuration says what this stage does; the first two always do the same."""
    asked = {
        "aggregated": ("aggregate_config",),
        "emergency": ("emergency_config",),
        "filtered": ("filter_config", "sanitize_config", "gps_fuzzing"),
    }
    return stage not in asked or old.has(*asked[stage])


def _schema() -> Node:
    said = "The columns of the uploader's table; what the sensor's table lacks is NULL."
    return Node("readings", {"use": "schematize", "missing": "null", "columns": COLUMNS}, said)


def _cleaned(old: Old, *, only_nulls: bool) -> list[Node]:
    sanitize, rules = old.mapping("sanitize_config"), old.mapping("filter_config")
    nulls = sanitize.get("remove_nulls") or []
    nulls = [nulls] if isinstance(nulls, str) else nulls
    if others := sorted(set(sanitize) - {"remove_nulls"}):
        old.note("sanitize_config", f"{', '.join(others)} has no counterpart", "Write it as `schematize`, or as a query of `sql`.")
    if nulls:
        old.note("sanitize_config", "missing values were replaced by 0.0 or removed; here rows without them are filtered, and counted",
                 "Nothing to do, if 0.0 was not what you wanted.")  # fmt: skip
    options: Options = {"use": "filter"}
    options |= {"remove_nulls": nulls} if nulls else {}
    options |= {"where": rules} if rules and not only_nulls else {}
    return [Node("clean", options)] if len(options) > 1 else []


def _private(old: Old) -> list[Node]:
    given = old.mapping("gps_fuzzing")
    if not given or str(given.get("enabled", True)).lower() in ("false", "0", "no"):
        return []
    known = ("radius_meters", "base_lat", "base_lon")
    _others(old, "gps_fuzzing", given, (*known, "enabled"))
    if "GPS_FUZZ_KEY" not in old.secrets:
        old.secrets.append("GPS_FUZZ_KEY")
    old.note("gps_fuzzing", "noise that is new for every row averages out, so lakeward's depends on a key and stays the same for a place",
             "Set GPS_FUZZ_KEY to 16 random bytes or more, and keep it.")  # fmt: skip
    return [Node("private", {"use": "gps_fuzz", "gps_fuzzing": {name: given[name] for name in known if name in given}})]


def _windows(old: Old) -> list[Node]:
    given = old.mapping("aggregate_config")
    known = ("window_minutes", "group_by", "aggregations")
    _others(old, "aggregate_config", given, known)
    options = {name: given[name] for name in known if name in given}
    if not options.get("aggregations"):
        options["aggregations"] = {"temperature": ["mean", "max", "min"], "humidity": ["mean"]}
        old.note(
            "aggregate_config", "it does not say what to aggregate", "The aggregations are those of the uploader's manual; correct them."
        )
    return [Node("windows", {"use": "window", "aggregate_config": options})]


def _alerts(old: Old) -> list[Node]:
    given = old.mapping("emergency_config")
    known = ("trigger_keywords", "severity_thresholds")
    _others(old, "emergency_config", given, (*known, "enabled"))
    options = {name: given[name] for name in known if given.get(name)}
    if not options:
        options = {"trigger_keywords": KEYWORDS, "severity_thresholds": LIMITS}
        old.note(
            "emergency_config",
            "it does not say what an emergency is",
            "The words and limits are those of the uploader's manual; correct them.",
        )
    return [Node("alerts", {"use": "emergency", "emergency_config": options})]


def _others(old: Old, key: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            old.note(f"{key}.{name}", "lakeward has no such option", "See the manual page of the transform for what comes near.")
