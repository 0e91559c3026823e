"""Where objects go: buckets and folders from templates, and a client with credentials as AWS tools find them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import boto3  # type: ignore[import-untyped]  # boto3 and botocore ship no types
from attrs import frozen
from botocore.config import Config  # type: ignore[import-untyped]

from lakeward import OptionError
from lakeward.secrets import Secret

# Below INFO they print keys, tokens and signatures; below ERROR the last one prints a traceback for each answer that is cut short.
QUIET = {"boto3": logging.INFO, "botocore": logging.INFO, "urllib3": logging.INFO, "urllib3.connection": logging.ERROR}
FIELD = re.compile(r"\{(.*?)\}")
BUCKET = re.compile(r"[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{1,253}[A-Za-z0-9]|arn:[ -~]+")
ADDRESS, FOLDER = re.compile(r"https?://[^\s/@?#:]+(:\d{1,5})?(/[^\s@?#]*)?"), re.compile(r"(?!\.\.?(/|$))[^/]+(/(?!\.\.?(/|$))[^/]+)*")


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


def require_address(url: str) -> None:
    """Raises OptionError for one that is none, or has a user or a password in it: messages show it."""
    if url and not ADDRESS.fullmatch(url):
        raise OptionError("endpoint_url", "is not an address such as https://host:9000")


@frozen
class Account:
    """Whose requests they are, and where they go."""

    region: str
    endpoint_url: str
    profile: str
    keys: tuple[Secret | None, Secret | None, Secret | None]
    """Access key id, secret access key, session token; all None to ask the AWS chain."""
    connect_timeout: timedelta
    timeout: timedelta

    def session(self) -> Any:
        """A fresh one, with credentials as they are now, or as they are where AWS tools look."""
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        secrets = {name: secret.reveal() for name, secret in zip(names, self.keys, strict=True) if secret}
        return boto3.session.Session(**secrets, region_name=self.region or None, profile_name=self.profile or None)

    def client(self) -> Any:
        """A fresh one of such a session."""
        for name, least in QUIET.items():
            logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
        session = self.session()
        if found := session.get_credentials():
            for value in found.get_frozen_credentials()[:3]:
                Secret(value or "", "the AWS chain")  # from now on `redact` knows it, wherever it came from
        config = Config(
            connect_timeout=self.connect_timeout.total_seconds(),
            read_timeout=self.timeout.total_seconds(),
            retries={"total_max_attempts": 1},  # the kernel tries again; a library that does so as well multiplies the attempts
            s3={"addressing_style": "path"} if self.endpoint_url else None,  # stores of one's own rarely have a name for each bucket
            request_checksum_calculation="when_required",  # the sha256 goes along; some stores do not know the library's newer ones
        )
        client = session.client("s3", endpoint_url=self.endpoint_url or None, config=config)
        client.meta.events.register("before-call.s3", _stay)
        return client


def _stay(params: dict[str, Any], **_: object) -> None:
    """Tell the library to follow no redirect: where everything is redirected, as in a hotel, it does so without end."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
