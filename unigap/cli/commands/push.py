"""``unigap push``: upload an exported pool or model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from unigap.cli.commands.export_model import CARD, RECIPE
from unigap.console.closing import close, command
from unigap.console.mistakes import shortened

KINDS = {"pool": "dataset", "model": "model"}
"""The hub's kind of repository for each kind of export."""
MARKS = {"pool": "data/*.parquet", "model": RECIPE}
"""Files that an export of each kind holds, besides its card."""


def push_pool(folder: str, repo: str, *, private: bool = True, dry_run: bool = False) -> None:
    """Upload a folder of ``unigap export pool`` to the Hugging Face hub as a data set.

    Args:
        folder: The exported folder.
        repo: Repository on the hub, e.g. me/my-pool; it is created if it does not exist.
        private: Whether a new repository is private.
        dry_run: Only list what would be uploaded, without a connection; always so if HF_HUB_OFFLINE is set.
    """
    _push("pool", folder, repo, private, dry_run)


def push_model(folder: str, repo: str, *, private: bool = True, dry_run: bool = False) -> None:
    """Upload a folder of ``unigap export model`` to the Hugging Face hub as a model.

    Args:
        folder: The exported folder.
        repo: Repository on the hub, e.g. me/my-model; it is created if it does not exist.
        private: Whether a new repository is private.
        dry_run: Only list what would be uploaded, without a connection; always so if HF_HUB_OFFLINE is set.
    """
    _push("model", folder, repo, private, dry_run)


def _push(kind: str, folder: str, repo: str, private: bool, dry_run: bool) -> None:
    files = exported_files(kind, Path(folder))
    validate_repo_id(repo)
    if "/" not in repo:
        raise ValueError(f"repository {repo!r} names no owner; write OWNER/{repo}")
    for file in files:
        print(f"{file.stat().st_size / 1e6:10.1f} MB  {file.relative_to(folder).as_posix()}")
    url = f"{constants.ENDPOINT}/{'datasets/' if kind == 'pool' else ''}{repo}"
    if dry_run or constants.HF_HUB_OFFLINE:
        print(f"nothing is uploaded (dry run): {len(files)} files would go to {url}")
        online = "without HF_HUB_OFFLINE, " if constants.HF_HUB_OFFLINE else ""
        close({}, online + command("push", kind, folder, repo))
        return
    api = HfApi()
    try:
        api.create_repo(repo, repo_type=KINDS[kind], private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type=KINDS[kind],
            folder_path=folder,
            allow_patterns=[file.relative_to(folder).as_posix() for file in files],
            commit_message=f"Upload a {kind} exported by unigap",
        )
    except HfHubHTTPError as error:
        # the message may name the request, never the token
        reason = shortened(error.server_message or str(error))
        raise ValueError(f"{url}: {reason}; check the name, and log in with 'hf auth login'") from error
    close({"uploaded": url}, f"look at its card: {url}")


def exported_files(kind: str, folder: Path) -> list[Path]:
    """Return the files of an exported folder, by name.

    Args:
        kind: ``pool`` or ``model``.
        folder: The folder.

    Raises:
        ValueError: It is not what ``unigap export`` writes, or a link in it leads elsewhere.
    """
    if not (folder / CARD).is_file() or not list(folder.glob(MARKS[kind])):
        raise ValueError(f"{str(folder)!r} is not what unigap export {kind} writes; export it first")
    found = sorted(folder.rglob("*"))
    link = next((path for path in found if path.is_symlink()), None)
    if link:
        raise ValueError(f"{str(link)!r} is a symbolic link, which would upload a file from elsewhere; remove it")
    return [path for path in found if path.is_file()]
