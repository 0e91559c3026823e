"""The old configuration: keys and variables, which of them are taken, and what is left over."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from attrs import define, field

from lakeward.errors import LakewardError
from lakeward.secrets import Secret
from lakeward_plugins.ops.migrate.draft import Bare, Note

LARGEST = 256 << 10  # bytes
LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^{}]*))?\}|\$([A-Za-z_]\w*)")
SIMPLE = re.compile(r"[^{}$\n]*")
VARIABLES = {  # of the old uploaders, and the key of their files that each stands for
    "DATABRICKS_HOST": "databricks_host", "DATABRICKS_HTTP_PATH": "databricks_http_path", "DATABRICKS_TOKEN": "databricks_token",
    "DATABRICKS_DATABASE": "databricks_database", "DATABRICKS_TABLE": "databricks_table", "SQLITE_PATH": "sqlite",
    "SENSOR_DB_PATH": "sqlite", "SQLITE_TABLE_NAME": "sqlite_table_name", "TIMESTAMP_COL": "timestamp_col", "STATE_DIR": "state_dir",
    "UPLOAD_INTERVAL": "interval", "ONCE": "once", "ENABLE_SANITIZE": "enable_sanitize", "SANITIZE_CONFIG": "sanitize_config",
    "ENABLE_FILTER": "enable_filter", "FILTER_CONFIG": "filter_config", "ENABLE_AGGREGATE": "enable_aggregate",
    "AGGREGATE_CONFIG": "aggregate_config", "TABLE_PATH": "table_path", "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key", "AWS_SESSION_TOKEN": "aws_session_token", "AWS_REGION": "aws_region",
    "AWS_PROFILE": "aws_profile", "AWS_ENDPOINT_URL": "endpoint_url", "S3_PREFIX": "s3_bucket_prefix",
    "S3_BUCKET_PREFIX": "s3_bucket_prefix",
    "S3_REGION": "s3_region", "S3_BUCKET_NAME": "s3_bucket", "PROCESSING_MODE": "processing_mode", "COSMOS_ENDPOINT": "endpoint",
    "COSMOS_KEY": "key", "COSMOS_DATABASE": "database", "DATABASE_NAME": "database", "COSMOS_CONTAINER": "container",
    "CONTAINER_NAME": "container", "PARTITION_KEY": "partition_key", "COSMOS_ACCOUNT_NAME": "account_name",
}  # fmt: skip
BUCKET = re.compile(r"(?:S3_)?BUCKET_(RAW|VALIDATED|ANOMALIES|SCHEMATIZED|FILTERED|AGGREGATED|EMERGENCY)|S3_BUCKET_(\w+)_DATA")
SPELLINGS = {
    "sqlite_path": "sqlite", "db": "sqlite", "sqlite_table": "sqlite_table_name", "table_name": "sqlite_table_name",
    "timestamp_column": "timestamp_col", "upload_interval": "interval", "enable_sanitization": "enable_sanitize",
    "enable_aggregation": "enable_aggregate", "enable_filtering": "enable_filter", "pipeline_type": "processing_mode",
    "gps_fuzz": "gps_fuzzing", "batch_size": "max_batch_size", "s3_prefix": "s3_bucket_prefix", "emergency": "emergency_config",
    "database_name": "database", "container_name": "container", "partition_key_path": "partition_key", "account_key": "key",
    "account_endpoint": "endpoint", "primary_key": "key",
}  # fmt: skip
BLOCKS = ("cosmos", "cosmosdb", "cosmos_db", "azure", "databricks", "sqlite_source", "settings", "uploader", "aws", "source", "target")
"""Mappings whose keys mean the same as at the top, or with the name of the mapping before them."""


@define
class Old:
    """What it says, by the keys of the old files; variables win over the file, as they did."""

    values: dict[str, Any]
    variables: dict[str, str]
    """The name of the variable that could give a key, by key."""
    given: set[str] = field(factory=set)
    """Keys that variables gave, and not the file."""
    notes: list[Note] = field(factory=list)
    secrets: list[str] = field(factory=list)
    _taken: set[str] = field(factory=set)

    def has(self, *keys: str) -> bool:
        """Whether one of them is there."""
        return any(key in self.values for key in keys)

    def take(self, key: str, default: Any = None) -> Any:
        """The value itself; a mapping or a list may have been written as JSON."""
        self._taken.add(key)
        value = self.values.get(key, default)
        if isinstance(value, str) and value.strip()[:1] in ("{", "["):
            try:
                return json.loads(value)
            except ValueError:
                self.note(key, "it is no JSON", "Write it into the new file by hand.")
                return default
        return value

    def text(self, key: str, default: str = "") -> str:
        """For the new file: with the variable that gave it in front, so that it still wins."""
        value = self.take(key)
        variable = self.variables.get(key, "")
        if value is None:
            value = default
            if not value and variable:
                self.note(key, "it is not there", f"Set the variable {variable}, or write it in the place of ${{{variable}}}.")
                return f"${{{variable}}}"
        text = _references(str(value))
        return f"${{{variable}:-{text}}}" if variable and SIMPLE.fullmatch(text) else text

    def number(self, key: str) -> Any:
        """The same for a number; None when it is not there."""
        if not self.has(key):
            return None
        value = self.take(key)
        try:
            float(value)
        except (TypeError, ValueError):
            if not (isinstance(value, str) and REFERENCE.fullmatch(value)):
                self.note(key, "it is no number", "Write it into the new file by hand.")
                return None
            return Bare(_references(value))
        variable = self.variables.get(key, "")
        return Bare(f"${{{variable}:-{value}}}") if variable else value

    def flag(self, key: str) -> bool:
        """Whether it is switched on."""
        return str(self.take(key, "")).strip().lower() in ("true", "1", "yes", "on")

    def secret(self, key: str, variable: str) -> str:
        """A reference to it; what it is, is forgotten here."""
        value = str(self.take(key) or "")
        if match := REFERENCE.fullmatch(value):
            variable = match[1] or match[3]
        elif value:
            Secret(value, key)  # from now on no message shows it
            if key not in self.given:
                self.note(key, "a secret is not copied", f"Put it into the environment as {variable}, and out of the old file.")
        if variable not in self.secrets:
            self.secrets.append(variable)
        return f"${{env:{variable}}}"

    def mapping(self, key: str) -> dict[str, Any]:
        """A block; empty when it is not there. Any other value is named."""
        value = self.take(key)
        if value is not None and value != "" and not isinstance(value, Mapping):
            self.note(key, "it is no mapping", "Write it into the new file by hand.")
        return dict(value) if isinstance(value, Mapping) else {}

    def note(self, key: str, why: str, todo: str) -> None:
        """Something for a person."""
        if (one := Note(key, why, todo)) not in self.notes:
            self.notes.append(one)

    def drop(self, key: str, why: str, todo: str) -> None:
        """A key that is not carried over, if it is there."""
        if self.has(key):
            self.take(key)
            self.note(key, why, todo)

    def left(self) -> list[str]:
        """Keys that nobody took."""
        return [key for key in self.values if key not in self._taken]


def read(file: Path, env_files: Sequence[Path], process: Mapping[str, str]) -> Old:
    """From a YAML file, or one with lines NAME=value; files of variables; the variables of a process."""
    text = _text(file)
    variables = dict(process)
    for one in env_files:
        variables |= _variables(_text(one))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if lines and all(LINE.fullmatch(line) for line in lines):
        variables, found = _variables(text) | variables, {}
    else:
        found = _keys(file, text)
    names: dict[str, str] = {}
    for name, key in VARIABLES.items():
        if key not in names or name in variables:
            names[key] = name
        if variables.get(name):
            found[key] = variables[name]
    for name, value in variables.items():
        if value and (match := BUCKET.fullmatch(name)):
            found.setdefault("s3_buckets", {})
            if isinstance(found["s3_buckets"], dict):
                found["s3_buckets"] |= {(match[1] or match[2]).lower(): f"${{{name}:-{value}}}"}
    if not found:
        raise LakewardError(f"{file}: nothing in it is a key or a variable of an old uploader; give the file that it was started with")
    return Old(found, names, {key for name, key in VARIABLES.items() if variables.get(name)})


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        raw = opened.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise LakewardError(f"{file}: more than {LARGEST >> 10} KiB; that is no configuration")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LakewardError(f"{file}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _variables(text: str) -> dict[str, str]:
    """Lines NAME=value, as shells and Docker have them: quotes are taken off, and ${OTHER} is filled in from lines above."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := LINE.fullmatch(line.strip()):
            value = match[2].strip()
            if value[:1] in ("'", '"'):
                quote = value[0]
                value = (
                    value[1:].partition(quote)[0]
                    if quote == "'" or '\\"' not in value
                    else value[1:].rpartition(quote)[0].replace('\\"', '"')
                )
            else:
                quote, value = "", re.split(r"\s+#", value)[0]
            if quote != "'":
                value = REFERENCE.sub(lambda one: found.get(one[1] or one[3], one[2] or one[0]), value)
            found[match[1]] = value
    return found


def _keys(file: Path, text: str) -> dict[str, Any]:
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ValueError("aliases (*name) are not read; write out what they stand for")  # some lines of them can stand for gigabytes
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise LakewardError(f"{file}: is no YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(given, dict):
        raise LakewardError(f"{file}: a mapping of keys is expected, not {type(given).__name__}")
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = _snake(str(name))
        if key in BLOCKS and isinstance(value, dict):
            for below, one in value.items():
                inner = _snake(str(below))
                found[
                    f"databricks_{inner}" if key == "databricks" and not inner.startswith("databricks_") else SPELLINGS.get(inner, inner)
                ] = one
        elif value is not None:
            found[SPELLINGS.get(key, key)] = value
    return found


def _snake(name: str) -> str:
    """`partitionKey`, `partition-key` and `PartitionKey` are `partition_key`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).replace("-", "_").lower()


def _references(text: str) -> str:
    """`$NAME` as `${NAME}`, which lakeward knows as well."""
    return REFERENCE.sub(lambda one: f"${{{one[3]}}}" if one[3] else one[0], text)
