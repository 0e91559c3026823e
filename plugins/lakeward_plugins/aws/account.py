"""Whose requests they are: options that are checked, credentials as AWS tools find them, and a client."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from functools import cache
from threading import Lock
from typing import Any

from attrs import frozen

from lakeward import OptionError
from lakeward.secrets import Secret

# Below INFO they print keys, tokens and signatures; below ERROR the last one prints a traceback for each answer that is cut short.
QUIET = {"boto3": logging.INFO, "botocore": logging.INFO, "urllib3": logging.INFO, "urllib3.connection": logging.ERROR}
TURN = Lock()  # of sinks that start at the same time; the second finds what the first has read
ADDRESS = re.compile(r"https?://[^\s/@?#:]+(:\d{1,5})?(/[^\s@?#]*)?")


@frozen
class Account:
    """Whose requests they are, and where they go. Raises OptionError for options that do not go together."""

    region: str
    endpoint_url: str
    """Of a store that is not AWS; empty for AWS, or for what the environment says."""
    profile: str
    keys: tuple[Secret | None, Secret | None, Secret | None]
    """Access key id, secret access key, session token; all None to ask the AWS chain."""
    connect_timeout: timedelta
    timeout: timedelta

    def __attrs_post_init__(self) -> None:
        key, secret, token = self.keys
        if self.endpoint_url and not ADDRESS.fullmatch(self.endpoint_url):  # nor a user or a password in it: messages show it
            raise OptionError("endpoint_url", "is not an address such as https://host:9000")
        if bool(key) != bool(secret) or (token and not key):
            raise OptionError("access_key_id", "and `secret_access_key` go together, and `session_token` with them; give all or none")
        if self.profile and key:
            raise OptionError("profile", "and `access_key_id` are two ways to say the same; give one of them")

    def session(self) -> Any:
        """A fresh one, with credentials as they are now where AWS tools look; ImportError without boto3."""
        from boto3.session import Session  # type: ignore[import-untyped]  # boto3 and botocore ship no types; and not everybody needs it
        from botocore.session import get_session  # type: ignore[import-untyped]

        for name, least in QUIET.items():
            logging.getLogger(name).setLevel(max(least, logging.getLogger(name).getEffectiveLevel()))
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        given = {name: secret.reveal() for name, secret in zip(names, self.keys, strict=True) if secret}
        core = get_session()
        with TURN:
            services = _services()
            core.register_component("data_loader", services)
            session = Session(**given, region_name=self.region or None, profile_name=self.profile or None, botocore_session=core)
            services.search_paths[:] = dict.fromkeys(services.search_paths)  # each session adds the same path
        return session

    def client(self, session: Any) -> Any:
        """A fresh one for S3, which tries nothing again and follows no redirect."""
        from botocore.config import Config  # type: ignore[import-untyped]

        credentials(session)
        config = Config(
            connect_timeout=self.connect_timeout.total_seconds(),
            read_timeout=self.timeout.total_seconds(),
            retries={"total_max_attempts": 1},  # the kernel tries again; a library that does so as well multiplies the attempts
            s3={"addressing_style": "path"} if self.endpoint_url else None,  # stores of one's own rarely have a name for each bucket
            request_checksum_calculation="when_required",  # the sha256 goes along; some stores do not know the library's newer ones
        )
        with TURN:
            client = session.client("s3", endpoint_url=self.endpoint_url or None, config=config)
        client.meta.events.register("before-call.s3", _stay)
        return client


@cache
def _services() -> Any:
    """What AWS services are like, some megabytes of JSON: read once in a process, not for each session."""
    from botocore.session import get_session

    return get_session().get_component("data_loader")


def credentials(session: Any) -> tuple[str, str, str]:
    """Access key id, secret access key and token as they are now, empty where there is none; from now on `redact` knows them."""
    found = session.get_credentials()
    values = [value or "" for value in found.get_frozen_credentials()[:3]] if found else ["", "", ""]
    for value in values:
        Secret(value, "the AWS chain")
    return values[0], values[1], values[2]


def _stay(params: dict[str, Any], **_: object) -> None:
    """Tell the library to follow no redirect: where everything is redirected, as in a hotel, it does so without end."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
