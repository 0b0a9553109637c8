"""Why a file could not be fetched, in a few words."""

from __future__ import annotations

import socket

MAX_WORDS = 120  # characters

# What the message of a program or a library contains, in lower case, and what is reported for it.
REASONS = {
    "known hash": "wrong checksum",
    "do not match the hashes": "wrong checksum",  # pip
    "hash mismatch": "wrong checksum",  # uv
    "timed out": "timed out",
    "refused": "connection refused",
    "unreachable": "unreachable",
    "certificate": "certificate not accepted",
    "incompleteread": "connection cut",
    "name resolution": "no network, or the name is unknown",
    "name or service not known": "no network, or the name is unknown",
    "nodename nor servname": "no network, or the name is unknown",
    "getaddrinfo failed": "no network, or the name is unknown",
}


def describe(error: Exception) -> str:
    """A few words for any exception; those of Requests and urllib3 wrap one another's messages."""
    if isinstance(error, socket.gaierror):
        return "no network, or the name is unknown"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    return shorten(str(error)) or type(error).__name__


def shorten(message: str) -> str:
    """The reason in a message, if it is a known one, else its beginning, on one line."""
    return recognize(message) or " ".join(message.split())[:MAX_WORDS]


def recognize(message: str) -> str | None:
    """One of REASONS, if the message contains it."""
    line = " ".join(message.split()).lower()
    return next((reason for pattern, reason in REASONS.items() if pattern in line), None)
