"""The Hugging Face hub: whether it is reachable, and its errors as sentences that end with the remedy."""

from __future__ import annotations

import re

from huggingface_hub import constants, errors

from kdx.run.connection import answers

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*[A-Za-z0-9_]", re.ASCII)
LONGEST = 96
LOG_IN = "`hf auth login`, or set HF_TOKEN"


def why_unreachable() -> str | None:
    """Return why the hub cannot be asked; None if it can. Takes a few seconds without a connection."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if answers(constants.ENDPOINT) else f"no connection to {constants.ENDPOINT}"


def is_name(text: str) -> bool:
    """Return whether a text is the name of a repository, USER/NAME."""
    return NAME.fullmatch(text) is not None and len(text) <= LONGEST and not re.search(r"--|\.\.|\.git$", text)


def repository(address: str) -> str:
    """Return USER/NAME of a web address or hf:// address of the hub; other texts as they are."""
    return re.sub(r"^(?:https?://[^/]+/|hf://)(?:(?:datasets|models)/)?|/$", "", address.strip())


def reason(error: BaseException, page: str, action: str) -> str:
    """Return what an error of the hub's client means, with the remedy.

    Args:
        error: The exception.
        page: The path of the repository's page on the hub.
        action: What failed, such as "read": for a token that does not permit it.
    """
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of a thread
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"its owner's conditions are to be accepted at {constants.ENDPOINT}/{page}; then log in: {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no such revision: {constants.ENDPOINT}/{page}/tree/main lists branches and tags"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return f"it does not exist, or is private: correct the name, or log in: {LOG_IN}"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"there is no token: {LOG_IN}"
    if status in (401, 403):
        return f"the token does not permit to {action} it (HTTP {status}): log in with another one: {LOG_IN}"
    if status == 429:
        return "the hub gets too many requests (HTTP 429): try again in some minutes"
    return f"{type(error).__name__}: {first_line(error)}: try again"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
