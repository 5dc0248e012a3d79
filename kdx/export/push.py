"""Upload an export to a model repository on the Hugging Face hub. The folder stays as it is, whatever happens."""

from __future__ import annotations

from pathlib import Path

from kdx.export.parity import ExportError
from kdx.run.provenance import VERSION
from kdx.run.quiet import quiet


class PushError(ExportError):
    """An export that could not be uploaded. The message ends with the remedy."""


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload the files of an export to the repository `name`, which is created if necessary, and return its address.

    They are one commit, so that the repository has all or none of them. The token is that of HF_TOKEN or of the hub's login.

    Args:
        folder: The export.
        name: USER/NAME.
        private: Whether a repository that is created is private; one that exists stays as it is.

    Raises:
        PushError: If the hub cannot be reached or refuses it.
    """
    from huggingface_hub import HfApi, constants

    from kdx.run import hub

    kept = f"{folder} is exported, but not uploaded to {name}"
    again = "The same command exports and uploads it again"
    unreachable = hub.why_unreachable()
    if unreachable is not None:
        raise PushError(f"{kept}: {unreachable}: connect. {again}")
    api = HfApi(token=True, library_name="kdx", library_version=VERSION)
    try:
        with quiet():  # warnings of its HTTP library
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Export of kdx {VERSION}")
    except Exception as error:  # the hub's client has had three HTTP libraries, each with its own exceptions
        raise PushError(f"{kept}: {hub.reason(error, name, 'write to')}. {again}") from None
    return f"{constants.ENDPOINT}/{name}"
