"""Masking of passwords and keys in everything that kdx writes and prints: files of a run, logs, messages."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO
from urllib.parse import urlsplit, urlunsplit

MASK = "******"
NAME = (  # the end of the name of a secret: api_key, WANDB_API_KEY, authToken, secret_access_key, aws_access_key_id
    r"(?:token|passw(?:or)?d|passphrase|pwd|secret|credential|authorization|connection[_-]?string"
    r"|(?:api|access|secret|private|account|auth|encryption)[_-]?key)(?:s|[_-]?id)?"
)
SECRET = re.compile(rf"{NAME}$", re.IGNORECASE)
# A word such as +logger.x.token=VALUE, in or without quotes: the value goes up to the end, or to the closing quote.
OVERRIDE = re.compile(rf"^([\w.@+~/-]*{NAME}=)(.+)$", re.IGNORECASE | re.MULTILINE)
QUOTED_OVERRIDE = re.compile(rf"(?P<quote>['\"])([\w.@+~/-]*{NAME}=)(.+?)(?P=quote)", re.IGNORECASE)
LINE = re.compile(rf"^([ \t]*(?:- )?[\w.-]*{NAME}:[ \t]+)(.+)$", re.IGNORECASE | re.MULTILINE)  # of YAML
STRING = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
PAIR = re.compile(rf"({NAME}[\"']?[ \t]*[=:][ \t]*)({STRING}|\$\{{[^}}]*\}}|[^\s,;&}})\]\"']+)", re.IGNORECASE)
PAIR_IN_CODE = re.compile(rf"({NAME}[\"']?[ \t]*[=:][ \t]*)({STRING})", re.IGNORECASE)
USER = re.compile(r"(\w://)[^/\s'\"<>]+@")  # https://USER:PASSWORD@host
SIGNATURE = re.compile(r"([?&](?:[\w-]*signature|sig)=)[^&\s'\"]+", re.IGNORECASE)  # of a signed URL
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")  # of Hugging Face, whatever its name
NOT_SECRET = re.compile(rf"true|false|null|none|{re.escape(MASK)}|\$\{{oc\.env:\w+\}}", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Return whether values of this name are secrets: token, password, passwd, secret, api_key, access_key and their kin."""
    return SECRET.search(name) is not None


def masked(value: Any, *, hidden: bool = False) -> Any:
    """Return plain data with `MASK` in place of secrets.

    A secret is a text or a number under a name such as `token` (see `is_secret`), at any depth below it, and the user and the
    password in a URL. True, false, null and `${oc.env:NAME}` are kept, and the numbers of a plural such as `tokens`.

    Args:
        value: Mappings, lists and plain values.
        hidden: Whether all texts and numbers of `value` are secrets.
    """
    if isinstance(value, Mapping):
        return {key: _masked_item(str(key), item, hidden) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item, hidden=hidden) for item in value]
    if isinstance(value, str):
        return MASK if hidden and value and not NOT_SECRET.fullmatch(value) else mask(value)
    return MASK if hidden and isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _masked_item(key: str, item: Any, hidden: bool) -> Any:
    counts = key.endswith("s") and isinstance(item, (int, float))  # reg_tokens: 4
    return masked(item, hidden=hidden or (is_secret(key) and not counts))


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with `MASK` in place of secrets.

    These are NAME=VALUE, NAME: VALUE, user and password of URLs, tokens of Hugging Face, and `secrets`.
    """
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    text = HUB_TOKEN.sub(MASK, USER.sub(rf"\1{MASK}@", text))
    text = SIGNATURE.sub(rf"\1{MASK}", text)
    text = QUOTED_OVERRIDE.sub(lambda found: f"{found[1]}{found[2]}{_hidden(found[2], found[3])}{found[1]}", text)
    return PAIR.sub(_hide, LINE.sub(_hide, OVERRIDE.sub(_hide, text)))


def web_link(url: Any) -> str:
    """Return a web address without user, password, query and fragment, which may hold keys; "" if it is none."""
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def mask_code(text: str) -> str:
    """Return source code, or a patch, with `MASK` in place of secrets that are written as strings, and those in URLs."""
    return PAIR_IN_CODE.sub(_hide, HUB_TOKEN.sub(MASK, USER.sub(rf"\1{MASK}@", text)))


def secrets_in(overrides: Iterable[str]) -> list[str]:
    """Return the values of secrets in overrides such as logger.x.token=VALUE, as given and without quotes."""
    found = [match[2] for match in map(OVERRIDE.match, overrides) if match and not NOT_SECRET.fullmatch(match[2])]
    values = {value for text in found for value in (text, text.strip("'\""))}
    return sorted(values, key=len, reverse=True)


def masked_keys(value: Any, path: str = "") -> list[str]:
    """Return the dotted paths of plain data at which a secret was masked; for items of a list, the path of the list."""
    if isinstance(value, Mapping):
        return [key for name, item in value.items() for key in masked_keys(item, f"{path}.{name}" if path else str(name))]
    if isinstance(value, list):
        return [path] if any(masked_keys(item, path) for item in value) else []
    return [path] if isinstance(value, str) and MASK in value else []


def mask_record(record: logging.LogRecord) -> bool:
    """Mask secrets in a log record, as a filter that keeps all records."""
    record.msg, record.args = mask(record.getMessage()), ()
    return True


class MaskingFormatter(logging.Formatter):
    """Formats log records, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _MaskedStream:
    """A text stream that writes without secrets."""

    def __init__(self, stream: TextIO, secrets: Sequence[str]) -> None:
        self._stream, self._secrets = stream, secrets

    def write(self, text: str) -> int:
        self._stream.write(mask(text, self._secrets))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def masked_output(secrets: Sequence[str] = ()) -> Iterator[None]:
    """Mask secrets in all that Python prints to stdout and stderr, and all occurrences of `secrets`."""
    out: Any = _MaskedStream(sys.stdout, secrets)
    err: Any = _MaskedStream(sys.stderr, secrets)
    with redirect_stdout(out), redirect_stderr(err):
        yield


def _hide(found: re.Match[str]) -> str:
    return found[1] + _hidden(found[1], found[2])


def _hidden(name: str, value: str) -> str:
    """Return MASK, in the quotes of the value; the value if it is no secret."""
    quote = value[0] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else ""
    inside = value.strip("'\"") if quote else value
    counts = name.rstrip(" \t=:\"'").endswith("s") and inside.isdigit()  # reg_tokens=4
    return value if not inside or counts or NOT_SECRET.fullmatch(inside) else f"{quote}{MASK}{quote}"
