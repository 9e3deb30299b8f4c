"""One repository of models on a hub: Hugging Face, or an institute's mirror that speaks as it does (`HF_ENDPOINT`).

huggingface_hub does the transfers, and knows the user's token (of `hf auth login`, or `HF_TOKEN`). Here each of its
failures becomes one sentence, and nothing that a server says is a path before it was looked at.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import metacalo
from metacalo.errors import UNREADABLE, HubError, MissingExtraError
from metacalo.storage.atomic import remove

__all__ = ["DEFAULT_REVISION", "Repository", "Revision", "require_hub"]

DEFAULT_REVISION: Final = "main"

_OF_THE_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
_COMMIT: Final = "[0-9a-f]{40}"
_ALONE: Final = ".gitattributes"  # hubs put it into every repository


@dataclass(frozen=True)
class Revision:
    """What a repository holds at one commit.

    Attributes:
        commit: its SHA-1, which names it for ever.
        private: whether the repository is.
        files: name to size in bytes; None where the hub does not say.
    """

    commit: str
    private: bool
    files: Mapping[str, int | None]


def require_hub() -> None:
    """Raises `MissingExtraError` where huggingface_hub is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        message = "models are shared by huggingface_hub, which is not installed: pip install 'metacalo[hub]'"
        raise MissingExtraError(message) from None


class Repository:
    """A repository of that name, whether there is one or not.

    Args:
        name: such as `group/pblar`.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        HubError: no repository can have that name, or no hub the address in HF_ENDPOINT.
    """

    def __init__(self, name: str) -> None:
        require_hub()
        from huggingface_hub import HfApi
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            reason = str(error).removesuffix(".")
            raise HubError(f"'{name}' is no name of a repository ({reason}); give it as USER/NAME") from None
        if "/" not in name:
            raise HubError(f"'{name}' is no name of a repository: whose is it? Give it as USER/NAME")
        endpoint = os.environ.get("HF_ENDPOINT") or None
        if endpoint is not None and not re.fullmatch(r"https?://[^\s/]\S*", endpoint):
            raise HubError(
                f"HF_ENDPOINT is '{endpoint}', which is no address; give one such as https://hub.example.org"
            )
        self.name = name
        self._api = HfApi(
            endpoint=endpoint,
            library_name="metacalo",
            library_version=metacalo.__version__,
        )

    @property
    def url(self) -> str:
        """Where it is looked at in a browser."""
        return f"{self._api.endpoint.rstrip('/')}/{self.name}"

    def create(self, *, private: bool) -> None:
        """Makes the repository, unless there is one; who makes it decides whether it is private.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        with self._hub_errors():
            self._api.create_repo(self.name, private=private, exist_ok=True)

    def branch(self, name: str) -> None:
        """Makes a branch that is as the default one, unless there is one of that name.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        with self._hub_errors():
            self._api.create_branch(self.name, branch=name, exist_ok=True)

    def at(self, revision: str) -> Revision:
        """What it holds at a branch, a tag or a commit.

        Raises:
            HubError: there is no such repository or revision, or the hub cannot be reached.
        """
        with self._hub_errors(revision):
            info = self._api.model_info(self.name, revision=revision, files_metadata=True)
            commit, siblings = str(info.sha), info.siblings or []
            sizes = {str(each.rfilename): each.size for each in siblings}
        files = {name: size if isinstance(size, int) else None for name, size in sizes.items() if name != _ALONE}
        if not re.fullmatch(_COMMIT, commit):  # the library makes paths of it
            raise HubError(
                f"{self.url}: the server names a commit {commit[:100]!r}, which is not a commit; correct HF_ENDPOINT"
            )
        if re.fullmatch(_COMMIT, revision) and commit != revision:
            raise HubError(f"{self.url}: the server gives commit {commit} for {revision}; correct HF_ENDPOINT")
        return Revision(commit, bool(info.private), files)

    def fetch(self, names: list[str], commit: str, folder: Path, *, quiet: bool = False) -> None:
        """Puts files of a commit into a folder, and nothing else.

        Args:
            names: plain names, without the letters of patterns.
            commit: see `Revision`.
            folder: an existing one.
            quiet: draw no bars.

        Raises:
            HubError: one is not there, or the connection is lost.
        """
        with self._hub_errors(commit), _bars(quiet):
            self._api.snapshot_download(self.name, revision=commit, local_dir=folder, allow_patterns=names)
        remove(folder / ".cache")  # the library's notes for another time
        for name in names:
            if not (folder / name).is_file():
                raise HubError(f"{self.url}: '{name}' did not arrive; give the same command again")

    def commit(
        self,
        files: Mapping[str, Path | str],
        branch: str,
        message: str,
        *,
        before: Revision,
        removed: Sequence[str] = (),
        quiet: bool = False,
    ) -> str:
        """Makes one commit.

        Args:
            files: name to a file on disk, or to a text.
            branch: an existing one.
            message: of the commit.
            before: what the branch holds; if it has changed since, the hub refuses.
            removed: names of files that the commit takes away.
            quiet: draw no bars.

        Returns:
            Its SHA-1.

        Raises:
            HubError: the hub cannot be reached, or refuses; the branch is then as it was.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        added = [
            CommitOperationAdd(name, content.encode() if isinstance(content, str) else content)
            for name, content in files.items()
        ]
        with self._hub_errors(branch), _bars(quiet):
            made = self._api.create_commit(
                self.name,
                [*added, *(CommitOperationDelete(name) for name in removed)],
                commit_message=message,
                revision=branch,
                parent_commit=before.commit,
            )
        return str(made.oid)

    @contextmanager
    def _hub_errors(self, revision: str = DEFAULT_REVISION) -> Iterator[None]:
        """Turns what goes wrong in huggingface_hub, below it and at the server into one sentence."""
        from huggingface_hub.errors import HTTPError

        try:
            yield
        except (HTTPError, *UNREADABLE) as error:
            if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
                raise
            raise HubError(self._sentence(error, revision)) from None

    def _sentence(self, error: BaseException, revision: str) -> str:
        from huggingface_hub.errors import HTTPError
        from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        chain = [error]
        while (deeper := chain[-1].__cause__) is not None:
            chain.append(deeper)
        by = next((each for each in chain if getattr(each, "response", None) is not None), error)
        code = getattr(getattr(by, "response", None), "status_code", None)
        if isinstance(by, GatedRepoError):
            return f"{self.url}: is given to those alone who ask for it; ask there, then give the same command again"
        if isinstance(by, RevisionNotFoundError):
            return f"{self.url}: has no revision '{revision}'; choose a branch, a tag or a commit that it has"
        if isinstance(by, RepositoryNotFoundError):
            return (
                f"{self.url}: there is no such repository, or it is private and you are not logged in; correct the "
                "name, or log in (hf auth login, or HF_TOKEN)"
            )
        if code == 401:
            return f"{self.url}: the hub does not know you; log in (hf auth login, or HF_TOKEN)"
        if code == 403:
            return f"{self.url}: your token may not write there; take one that may, or another --repository"
        if code in (409, 412):
            return f"{self.url}: was changed by somebody else meanwhile; look at it, then give the same command again"
        reason = " ".join(str(getattr(by, "server_message", None) or chain[-1]).split())[:300]
        if code is not None:
            mend = "try again later" if code >= 500 or code == 429 else "correct HF_ENDPOINT or the command"
            return f"{self.url}: the server answered {code} ({reason}); {mend}"
        if not any(isinstance(each, (OSError, HTTPError)) for each in chain):
            kind = type(chain[-1]).__name__
            return f"{self.url}: the server does not answer as a hub does ({kind}: {reason}); correct HF_ENDPOINT"
        return f"{self.url}: cannot be reached ({reason}); look at the network, or name a mirror by HF_ENDPOINT"


@contextmanager
def _bars(quiet: bool) -> Iterator[None]:
    """Lets the library draw its bars of bytes on a terminal, and nowhere else."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or not (quiet or not sys.stderr.isatty()):
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
