"""What the store answers and the AWS library raises, as what the kernel knows."""

from __future__ import annotations

import ssl

import botocore.exceptions as aws  # type: ignore[import-untyped]  # boto3 and botocore ship no types
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from lakeward import Refused, Rejected, Retry
from lakeward.wording import one_line

REMEDY: dict[int | str, str] = {
    **dict.fromkeys((401, "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"), "check access_key_id, "
        "secret_access_key and session_token, or what the AWS chain finds"),
    **dict.fromkeys((301, 307, "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), "set `region` to that of the bucket"),
    403: "check the credentials, and that they may s3:PutObject and s3:GetObject there",
    404: "make the bucket, or correct `bucket`",
    501: "it lacks what this sink needs: use another store",
    "KMS.NotFoundException": "correct `kms_key_id`", "KMS.DisabledException": "enable the key, or correct `kms_key_id`",
}  # fmt: skip
AGAIN = {408, 409, 425, 429}  # 409: another write of the same key is going on
DAMAGED = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentChecksumMismatch", "NoSuchUpload"}
"""On the way; the last one by a rule of the bucket, or another attempt, that removed what was not ended."""
ODD = (ResponseParserError, ValueError, TimeoutError)  # an answer cut short in its XML or in a date; the deadline, while the file is hashed
UNSENT = (aws.EndpointConnectionError, aws.ConnectTimeoutError)  # nobody heard of the request
PASSING = (*ODD, aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError, aws.CredentialRetrievalError)


def status(error: aws.ClientError) -> int:
    """The number, 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: aws.ClientError) -> str:
    """The word for it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def unhappy(error: aws.ClientError, where: str) -> Exception:
    """What the store answered. No 400 is about a row, so none makes dead letters: the rows wait until somebody has looked."""
    number, word = status(error), code(error)
    said = "" if word == str(number) else f" {one_line(word)}"  # so the library fills it when there is no body
    what = f"{where}: the store answered {number}{said}: {one_line(error.response.get('Error', {}).get('Message', ''))}"
    if word == "RequestTimeTooSkewed":
        return Retry(f"{what}; set the clock of this machine")
    if number == 413 or word == "EntityTooLarge":
        return Rejected(what)
    if number in AGAIN or (number >= 500 and number != 501) or word in DAMAGED:
        wanted = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
        return Retry(what, float(wanted) if wanted.isdecimal() else None, throttled=number in (429, 503) or word == "SlowDown")
    return Refused(f"{what}; {REMEDY.get(word) or REMEDY.get(number, 'check the options of this sink')}")


def unreached(error: Exception, where: str) -> Exception:
    """No answer, or none that can be understood."""
    cause: object = error
    for _ in range(10):  # libraries wrap each other's errors, in this way or that
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(f"{where}: the store's certificate is not trusted: {cause.verify_message}; check endpoint_url and certificates")
        reasons = [getattr(cause, "kwargs", {}).get("error"), getattr(cause, "__cause__", None), getattr(cause, "__context__", None)]
        cause = next(filter(None, reasons), None)
    what = f"{where}: {type(error).__name__}: {one_line(error)}"
    if isinstance(error, PASSING):
        return Retry(what)
    return Refused(f"{what}; check the options of this sink and the AWS environment")
