"""The store interface, and the four ways in which a request can fail.

Each kind of failure needs a different reaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


class AlreadyThere(Exception):
    """An object exists at this key. It may be this very frame, from an upload whose response was lost."""


class Unavailable(Exception):
    """The store cannot be used now: no network, a time-out, 429, 5xx. Try again later."""


class Denied(Exception):
    """No permission, or a wrong set-up: 401, 403, expired credentials, no such bucket. Only a person can help."""


class Refused(Exception):
    """The store rejects this frame. definite: it will always reject it, whatever happens to other frames."""

    def __init__(self, message: str, definite: bool = False):
        super().__init__(message)
        self.definite = definite


@dataclass(frozen=True)
class Store:
    """An open store. put(key, data) never overwrites but raises AlreadyThere; get(key) returns the object's bytes.

    Both raise Unavailable, Denied or Refused, with messages free of secrets.
    """

    name: str
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]
    parallel: bool = True  # True if two threads may use the store at once


# Codes that come with the status "bad request" but concern the credentials or the set-up, for every frame alike.
SET_UP = (
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "Received redirect",
    "NoSuchBucket",
    "InvalidBucketName",
    "IllegalLocationConstraint",
    "ContainerNotFound",
    "AccountIsDisabled",
    "ResourceNotFound",
    "AuthenticationFailed",
    "invalid_grant",
    "invalid_client",
    "KeyBasedAuthenticationNotPermitted",
    "TokenExpired",
)
TOO_MUCH = ("EntityTooLarge", "KeyTooLongError", "RequestBodyTooLarge")
CLOCK = ("RequestTimeTooSkewed", "RequestExpired")


def classify(status: int | None, text: str) -> Exception:
    """The exception for a failed request: Unavailable, Denied or Refused.

    status: HTTP status, None without a response. text: the whole error text.
    """
    line = first_line(text)
    if any(code in text for code in CLOCK):
        return Denied(f"the store refuses this device's clock; is it synced? (timedatectl) {line}")
    if "169.254.169.254" in text:  # the last link of the chain: a cloud machine's own identity
        return Denied(
            "no credentials were found: not from systemd, not in the environment, and this machine has no cloud "
            "identity. Put them into /etc/lakevision/credentials (README.md, Credentials) and restart lakevision-upload"
        )
    if status == 404 and any(code in text for code in ("NoSuchKey", "BlobNotFound")):
        return Unavailable(line)  # the object was deleted between AlreadyThere and get()
    if any(code in text for code in SET_UP) or status in (301, 302, 307, 308, 401, 403, 404):
        return Denied(line)
    if status is not None and 400 <= status < 500 and status not in (408, 409, 412, 425, 429):
        return Refused(line, definite=status in (413, 414) or any(code in text for code in TOO_MUCH))
    return Unavailable(line)


def first_line(text: str) -> str:
    """The useful part of obstore's message: no debug dump, and the server's code and message instead of its XML."""
    text = text.partition("Debug source:")[0].strip()
    head = text.partition("<?xml")[0].strip().rstrip(":")
    values = [
        match.group(1)
        for tag in ("Code", "Message")
        if (match := re.search(rf"<{tag}>(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?</{tag}>", text, re.DOTALL))
    ]
    return " ".join(" ".join([head, *values]).split())[:500]
