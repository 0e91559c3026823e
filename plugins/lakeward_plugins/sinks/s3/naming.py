"""Where objects go: buckets and folders from templates."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lakeward import OptionError

FIELD = re.compile(r"\{(.*?)\}")
BUCKET = re.compile(r"[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{1,253}[A-Za-z0-9]|arn:[ -~]+")
FOLDER = re.compile(r"(?!\.\.?(/|$))[^/]+(/(?!\.\.?(/|$))[^/]+)*")


def filled(option: str, template: str, fields: Mapping[str, tuple[str, str]]) -> str:
    """The template with `{name}` replaced by the value of a field, which is given with the option that it comes from."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in fields:
            raise OptionError(option, f"{found[0]} is no field; there are {', '.join(f'{{{name}}}' for name in fields)}")
        text, source = fields[found[1]]
        if not text:
            raise OptionError(source, f"is needed for {found[0]} in `{option}`")
        return text

    return FIELD.sub(value, template)


def require_bucket(bucket: str) -> None:
    """Raises OptionError when it cannot be the name of one."""
    if not BUCKET.fullmatch(bucket):
        raise OptionError("bucket", f"{bucket!r} cannot be a bucket: letters, digits, dots and hyphens, at least three")


def require_folder(prefix: str) -> None:
    """Raises OptionError when it would lead elsewhere, or cannot be read."""
    if prefix and not (FOLDER.fullmatch(prefix) and prefix.isprintable()):
        raise OptionError("prefix", f"{prefix!r} is not a folder; write names with / between them, without . and ..")
    if len(prefix.encode()) > 512:
        raise OptionError("prefix", "has more than 512 bytes, and all of a key has 1,024; take a shorter one")
