"""A repository that the task's own container fetches, and judges what was changed in it: `--clone-in-task`.

It is the workstation's own code, with a token in the place of the operator's login. Nothing is checked out here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farmhand.cloud.ending import say
from farmhand.code import changes, repository
from farmhand.code.changes import PatchRefused
from farmhand.code.login import TokenLogin
from farmhand.code.repository import FetchedCommit
from farmhand.core.errors import FarmhandError
from farmhand.core.task_access import CloneOrder


@dataclass
class TaskClone:
    """The repository of an order. `token` is the git token of the environment, "" for none."""

    order: CloneOrder
    token: str = field(repr=False)
    source: FetchedCommit | None = None

    def fetch(self, into: Path) -> dict[str, Any]:
        """Fetch it into the directory `into`, and return the task's `repo` but for its subdir. Raise FarmhandError."""
        order = self.order
        login = TokenLogin(order.url, self.token)
        say(f"fetching {login.hidden(order.url)}")
        try:
            self.source = repository.fetch(order.url, order.ref, into, depth=order.depth, login=login)
        except FarmhandError as error:
            hint = error.hint
            if not self.token and "could not read Username" in error.message:
                hint = "is it private? farmhand cloud credential put --kind git brings a token for it"
            raise type(error)(login.hidden(error.message), hint=login.hidden(hint), code=error.code) from None
        if names := repository.submodules(self.source):
            say(f"submodules are not fetched: {names}")
        return {"commit": self.source.commit, "shallow": list(self.source.shallow)}

    def judged(self, patch: bytes) -> dict[str, Any]:
        """Return the result's `repo`: what the patch changes, or as `refused` why it must not be used."""
        assert self.source is not None  # noqa: S101  (a task runs on what was fetched)
        about: dict[str, Any] = {"commit": self.source.commit, "branch": None, "patch": None}
        try:
            found = changes.judge(self.source, patch, allow_ci=self.order.allow_ci)
        except PatchRefused as error:
            return {**about, "refused": error.as_dict()}
        if found is not None:
            names = ("files", "insertions", "deletions")
            about["patch"] = {"bytes": len(patch), **{name: getattr(found, name) for name in names}}
        return about
