"""Sensors of cities into Cosmos DB, with an archive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lakeward_plugins.ops.migrate.draft import Draft, Graph, Node, Options
from lakeward_plugins.ops.migrate.old import Old

ANY = "data/*/*/sensor_data.db"
PARALLEL = ("concurrency", "parallelism", "max_degree_of_parallelism", "max_concurrency", "maxparallelism")
BATCHES = ("max_batch_size", "bulk_size")
FOLDERS = ("path", "directory", "dir", "folder", "archive_path", "output_path")


def cosmos(old: Old, source: Options, batch: Options) -> Draft:
    """A container, and files that grow for each sensor."""
    _connection_string(old)
    place = {
        "endpoint": _endpoint(old), "key": old.secret("key", "COSMOS_KEY"), "database": old.text("database", "SensorData"),
        "container": old.text("container", "SensorReadings"),
    }  # fmt: skip
    key = str(old.take("partition_key") or "/city")
    options: Options = {"use": "cosmos", **place, "partition_key": key if key.startswith("/") else f"/{key}"}
    for name, value in old.mapping("performance").items():
        _performance(old, str(name), value, options, batch)
    if old.flag("development"):
        options["development"] = True
        old.note("development", "ids and times of rows are not changed, and nothing in the sensor's database; items are marked instead",
                 "Take it out when the trials are over.")  # fmt: skip
    sinks = [Node("readings", options), *_archive(old)]
    for name, why in {
        "logging": "logging is set on the command line (--log-format)", "log_level": "it is set on the command line",
        "continuous": "a run goes on until it is told to stop, and ends with --once",
        "allow_bulk_execution": "items go in transactional batches", "connection_mode": "only the gateway is used, TCP port 443",
        "throughput": "the container must be there, with its throughput", "create_if_not_exists": "the container must be there",
    }.items():  # fmt: skip
        old.drop(name, why, "Nothing to do here.")
    return Draft("cosmos", "to_cosmos", _source(old, source), [Graph("main", [], sinks)], batch=batch)


def _endpoint(old: Old) -> str:
    name = old.take("account_name")
    return f"https://{name}.documents.azure.com" if name and not old.has("endpoint") else old.text("endpoint")


def _connection_string(old: Old) -> None:
    text = str(old.take("connection_string") or "")
    for part in text.split(";"):
        word, _, value = part.partition("=")
        if key := {"accountendpoint": "endpoint", "accountkey": "key"}.get(word.strip().lower()):
            old.values.setdefault(key, value)


def _source(old: Old, source: Options) -> Options:
    """All sensors below the folder of the one that was named: a pipeline reads them all."""
    path = str(source.get("path", ""))
    plain = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", path)
    parts = plain.split("/")
    if old.has("sqlite") and len(parts) >= 3 and "*" not in plain:
        many = "/".join([*parts[:-3], "*", "*", parts[-1]])
        old.note("sqlite", f"{plain} was of one sensor; the pipeline reads all cities there, with city and sensor from the path",
                 "If that is too many, write one path, take path_columns out, and see that the rows have a column city.")  # fmt: skip
        return source | {"path": many, "path_columns": ["city", "sensor"]}
    if not old.has("sqlite"):
        old.note("sqlite", "the database was named on the command line, not in the file", "Correct `path` of the source.")
        return source | {"path": ANY, "path_columns": ["city", "sensor"]}
    return source


def _performance(old: Old, name: str, value: Any, options: Options, batch: Options) -> None:
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if word in PARALLEL and isinstance(value, int):
        options["concurrency"] = max(1, min(64, value))
        if value > 64:
            old.note(f"performance.{name}", "lakeward writes at most 64 partitions at a time", "Nothing to do.")
    elif word in (*BATCHES, "batch_size") and isinstance(value, int):
        batch["rows"] = value
    else:
        old.note(
            f"performance.{name}", "lakeward needs no such setting", "Nothing to do; the sink sets its own pace by what the account allows."
        )


def _archive(old: Old) -> list[Node]:
    given: Any = old.take("archive")
    path = old.take("archive_path") or old.take("archive_dir")
    enabled = old.flag("enable_archive") if old.has("enable_archive") else True
    if isinstance(given, Mapping):
        enabled = enabled and str(given.get("enabled", True)).lower() not in ("false", "0", "no")
        path = path or next((given[name] for name in FOLDERS if given.get(name)), None)
        for name in given:
            if name not in (*FOLDERS, "enabled", "format", "compression"):
                old.note(f"archive.{name}", "lakeward has no such option", "See the manual page of the sink archive.")
    elif isinstance(given, str):
        path = path or given
    elif given is False or not (given or path or old.has("enable_archive")):
        return []
    if not enabled:
        return []
    options: Options = {"use": "archive", "path": str(path or "archive"), "file": "{city}/{sensor}.parquet"}
    return [Node("archive", options, "One file for each sensor, which grows.")]
