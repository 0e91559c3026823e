"""Secrets from environment variables (`${env:NAME}`) and from files such as `/run/secrets/key` (`${file:PATH}`)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lakeward import OptionError, hookimpl
from lakeward.secrets import Secret

LAKEWARD_API = (1, 0)
MAX_BYTES = 64 * 1024  # certificates with their chains fit; /dev/zero does not


class SecretOfFile(Secret):
    """What its file holds now: whoever is refused asks again, so a secret that is exchanged or corrected needs no restart."""

    __slots__ = ()

    def reveal(self) -> str:
        """As of the file; as it was at first while the file cannot be read."""
        with suppress(OptionError):
            return Secret(_from_file(self.reference.removeprefix("file:")), self.reference).reveal()  # masked from now on
        return super().reveal()


@hookimpl
def lakeward_resolve_secret(scheme: str, ref: str) -> Secret | None:
    """The secrets of the kinds `env` and `file`."""
    if scheme == "env":
        return Secret(_from_environment(ref), f"env:{ref}")
    if scheme == "file":
        return SecretOfFile(_from_file(ref), f"file:{ref}")
    return None


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise OptionError("", f"environment variable {name} is not set" + (" (it is empty)" if value == "" else ""))
    return value


def _from_file(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_absolute():  # relative to what? A secret must not depend on where lakeward was started
        raise OptionError("", f"secret file {name} needs an absolute path, such as /run/secrets/key")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise OptionError("", f"secret file {name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > MAX_BYTES:
        raise OptionError("", f"secret file {name} is larger than {MAX_BYTES // 1024} KiB; is it the right file?")
    try:
        value = raw.decode()
    except UnicodeDecodeError:  # without `from`: the cause would carry the bytes of the secret into a traceback
        raise OptionError("", f"secret file {name} is not UTF-8 text; is it the right file?") from None
    if value.endswith("\n"):  # editors and `echo` end the line
        value = value[:-1].removesuffix("\r")
    if not value:
        raise OptionError("", f"secret file {name} is empty")
    return value
