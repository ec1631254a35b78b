"""What a store is, and the four ways in which a request to one can fail: there are four things to do."""

import re
from dataclasses import dataclass
from typing import Callable


class AlreadyThere(Exception):
    """Something lies at this key. It may well be this frame, from an upload whose answer was lost."""


class Unavailable(Exception):
    """Not now: no network, a time-out, 429, 5xx. Try again later."""


class Denied(Exception):
    """No right to, or the store is set up wrongly: 401, 403, expired credentials, no such bucket. Only a person can help."""


class Refused(Exception):
    """The store does not want this frame. definite: it never will, whatever happens to others."""

    def __init__(self, message, definite=False):
        super().__init__(message)
        self.definite = definite


@dataclass(frozen=True)
class Store:
    """An open store. put(key, data) raises AlreadyThere rather than overwrite; get(key) gives the bytes that lie there.

    Both raise Unavailable, Denied or Refused, with messages free of secrets.
    """

    name: str
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]
    parallel: bool = True  # whether two threads may call it at once


# Codes that come with a status of "bad request" but mean the credentials or the set-up, for every frame alike.
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


def classify(status, text):
    """The exception that a failed request stands for. status: HTTP status or None; text: all that the store said."""
    line = first_line(text)
    if any(code in text for code in CLOCK):
        return Denied(f"the store refuses this device's clock; is it synced? (timedatectl) {line}")
    if "169.254.169.254" in text:  # the last link of the chain: a cloud machine's own identity
        return Denied(
            "no credentials were found: not from systemd, not in the environment, and this machine has no cloud identity. "
            "Put them into /etc/lakevision/credentials (README.md, Credentials) and restart lakevision-upload"
        )
    if status == 404 and any(code in text for code in ("NoSuchKey", "BlobNotFound")):
        return Unavailable(line)  # deleted between "already there" and our look at it
    if any(code in text for code in SET_UP) or status in (301, 302, 307, 308, 401, 403, 404):
        return Denied(line)
    if status is not None and 400 <= status < 500 and status not in (408, 409, 412, 425, 429):
        return Refused(line, definite=status in (413, 414) or any(code in text for code in TOO_MUCH))
    return Unavailable(line)


def first_line(text):
    """What a person needs of obstore's message: no debug dump, and the server's code and words in place of its XML."""
    text = text.partition("Debug source:")[0].strip()
    head = text.partition("<?xml")[0].strip().rstrip(":")
    said = [
        found.group(1)
        for tag in ("Code", "Message")
        if (found := re.search(rf"<{tag}>(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?</{tag}>", text, re.DOTALL))
    ]
    return " ".join(" ".join([head, *said]).split())[:500]
