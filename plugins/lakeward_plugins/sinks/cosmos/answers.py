"""Errors of the library, as what the kernel knows."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from azure.core.exceptions import AzureError, DecodeError, ServiceRequestError, ServiceResponseError
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosClientTimeoutError, CosmosHttpResponseError

from lakeward import Refused, Retry
from lakeward.wording import one_line

Unhappy = (CosmosHttpResponseError, CosmosBatchOperationError)
NEVER = (400, 413)
"""What the service says of an item that it will not take, whoever asks."""
AGAIN = {0, 408, 410, 424, 429, 449, 500, 502, 503, 504}
"""0: a batch of which no operation says why it failed."""
PASSING = {(403, 3), (404, 1002)}
"""Status and sub-status: another region takes the writes now; a replica that lags behind."""
PASSES = (ServiceRequestError, ServiceResponseError, CosmosClientTimeoutError, DecodeError)
ODD = (TypeError, ValueError, KeyError, AttributeError, IndexError)
"""What the library stumbles over when an answer was cut short or is none of Cosmos DB."""
REMEDY = {
    401: "check `key`, and the clock of this machine",
    403: "let the address of this machine through the firewall of the account, and check that `key` may write",
    404: "make the database and the container, or correct `database` and `container`",
}
FULL = 1014  # sub-status of a logical partition with 20 GB


@contextmanager
def understood(where: str) -> Iterator[None]:
    """Whatever the library raises but an answer of the service, which the caller looks at."""
    try:
        yield
    except Unhappy:
        raise
    except (AzureError, *ODD) as error:
        raise _unreached(error, where) from None


def problem(error: Any, where: str, otherwise: str = "check the options of this sink") -> Exception:
    """What an answer of the service means; `otherwise` is what to do about one that is not known."""
    status, sub = int(error.status_code or 0), int(error.sub_status or 0)
    what = f"{where}: Cosmos DB answered {status}{f'/{sub}' if sub else ''}: {said(error).rstrip('.')}"
    if status == 429:
        return Retry(f"{what}; if that lasts, give the container more throughput", asked_for(error), throttled=True)
    if status in AGAIN or (status, sub) in PASSING:
        return Retry(what, asked_for(error), throttled=status == 503)
    if (status, sub) == (403, FULL):
        return Refused(f"{what}; the partition is full (20 GB): choose a partition key with more values, in a new container")
    return Refused(f"{what}; {REMEDY.get(status, otherwise)}")


def is_of_service(error: Any) -> bool:
    """Whether Cosmos DB said it, and not something on the way to it."""
    with suppress(*ODD):
        return isinstance(json.loads(str(error.http_error_message))["message"], str)
    return False


def asked_for(error: Any) -> float | None:
    """Seconds to wait, when the service says so."""
    wanted = str((error.headers or {}).get("x-ms-retry-after-ms", ""))
    return float(wanted) / 1000 if wanted.replace(".", "", 1).isdecimal() else None


def said(error: Any) -> str:
    """The message of the service, on one line: without the id of the request, and not too long."""
    text = str(getattr(error, "http_error_message", None) or error)
    with suppress(*ODD):
        text = str(json.loads(text)["message"])
    return one_line(text.split("\r\nActivityId")[0])


def _unreached(error: Exception, where: str) -> Exception:
    """No answer, or none that can be understood."""
    cause: object = error
    for _ in range(10):  # libraries wrap each other's errors, in this way or that
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(f"{where}: its certificate is not trusted: {cause.verify_message}; check `endpoint` and the certificates here")
        inner: list[object] = [*getattr(cause, "args", ())]
        inner += [getattr(cause, name, None) for name in ("reason", "inner_exception", "__cause__", "__context__")]
        cause = next((one for one in inner if isinstance(one, BaseException)), None)
    what = f"{where}: {type(error).__name__}: {one_line(error)}"
    if isinstance(error, (*PASSES, *ODD)):
        return Retry(what)
    return Refused(f"{what}; check the options of this sink")
