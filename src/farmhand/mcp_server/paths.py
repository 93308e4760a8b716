"""Which files a session may have sent: those in the client's roots, and no file that is known to hold secrets."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from farmhand.core.errors import Refused, UsageError
from farmhand.core.keys import KEY

#: The most files of one call.
MOST = 10_000
_MOST_BYTES = 64 * 1024 * 1024
#: The names of files that hold secrets, and of directories that do. An example of one is none.
_SECRET = re.compile(
    r"\.env(\..+)?|.+\.env|\.envrc|\.netrc|_netrc|\.pgpass|\.my\.cnf|\.git-credentials|\.npmrc|\.pypirc|\.htpasswd|"
    r"\.credentials\.json|\.?credentials(\.(json|toml|ya?ml|ini))?|.*secrets?\.(json|toml|ya?ml|ini)|kubeconfig|"
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|.+_(rsa|ed25519)|.+\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|gpg|token)|"
    r"\.?vault[-_]?pass(word)?(\..*)?|\.?(bash|zsh|python|psql|mysql|sqlite)_history|auth\.json|\.claude\.json",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(r".+\.(example|sample|template|dist)", re.IGNORECASE)
_SECRET_PLACES = frozenset(
    {".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", ".claude", ".codex", ".pi", "gcloud"}
)
_PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|" + KEY.pattern.encode(), re.IGNORECASE)
_HINT = "files are taken from the session's own directories only"


class Paths:
    """The client's `roots`, without the whole machine. `never` are more files that are refused, the key source's."""

    def __init__(self, roots: Sequence[Path], never: Sequence[Path] = ()) -> None:
        resolved = [Path(os.path.realpath(root)) for root in roots]
        self.roots = [root for root in resolved if root != Path("/")]
        self._never = [os.path.realpath(path) for path in never]

    def file(self, given: str) -> Path:
        """Return the real path of a file that may be read. Raise Refused and UsageError."""
        path = self._checked(given)
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{given!r:.200} is not a regular file", code="invalid_file")
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{given!r:.200} has more than {_MOST_BYTES} bytes", hint="split it", code="too_large")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{given!r:.200}: {error.strerror}", code="invalid_file") from None
        if _PRIVATE.search(content):
            raise Refused(f"{given!r:.200} holds a key: it is not sent", hint="leave it out", code="secret_file")
        return path

    def files(self, names: Sequence[str]) -> tuple[list[Path], list[str]]:
        """Return the files of these names, directories and patterns, and the names that were left out of directories.

        A name that is given is refused where it may not be read; below a directory such a file is left out.
        """
        found: dict[Path, None] = {}
        left_out: list[str] = []
        for name in names:
            if "\0" not in name and (self._base(name).is_dir() or self._is_pattern(name)):
                for path in self._below(name):
                    try:
                        found[self.file(str(path))] = None
                    except Refused:
                        left_out.append(path.name)
            else:
                found[self.file(name)] = None
            if len(found) > MOST:
                raise UsageError(f"{name!r:.200}: more than {MOST} files", hint="name fewer", code="too_large")
        return [*found], left_out

    def shown(self, path: Path) -> str:
        """Return the path as the session knows it: relative to its root."""
        return next((str(path.relative_to(root)) for root in self.roots if path.is_relative_to(root)), str(path))

    def _base(self, given: str) -> Path:
        path = Path(os.path.expanduser(given))
        return path if path.is_absolute() or not self.roots else self.roots[0] / path

    def _is_pattern(self, name: str) -> bool:
        return glob.has_magic(name) and not os.path.lexists(self._base(name))

    def _below(self, name: str) -> Iterator[Path]:
        base = self._base(name)
        if not base.is_dir():
            matches = sorted(glob.iglob(str(base), recursive=True))
            yield from (Path(match) for match in matches if Path(match).is_file())
            return
        self._checked(name)
        for folder, folders, files in os.walk(base):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            below = (Path(folder, one) for one in sorted(files) if not one.startswith("."))
            yield from (path for path in below if path.is_file())  # no pipe, socket or link to nothing

    def _checked(self, given: str) -> Path:
        if not self.roots:
            what = f"{given!r:.200} is not read: the session has no directory of its own"
            raise Refused(what, hint="start it in a project's directory, or put the text into the prompt")
        if "\0" in given or not given:
            raise UsageError("a file's name is empty or has a NUL in it", code="invalid_file")
        try:
            path = Path(os.path.realpath(self._base(given), strict=True))
        except OSError as error:
            raise UsageError(f"{given!r:.200}: {error.strerror}", code="invalid_file") from None
        root = next((one for one in self.roots if path.is_relative_to(one)), None)
        if root is None:
            where = ", ".join(map(str, self.roots[:5]))
            raise Refused(f"{given!r:.200} is outside of the session's directories ({where})", hint=_HINT)
        if str(path) in self._never or self._is_secret(path, root):
            raise Refused(f"{given!r:.200} is a file that may hold secrets: it is not sent", hint="leave it out")
        return path

    def _is_secret(self, path: Path, root: Path) -> bool:
        if _SECRET.fullmatch(path.name) and not _EXAMPLE.fullmatch(path.name):
            return True
        home = Path(os.path.realpath(os.path.expanduser("~")))
        inside = path.relative_to(root).parts[:-1]
        if _SECRET_PLACES.intersection(path.parts):
            return True
        # What is hidden in a home is the programs' own, unless the session itself is at work in there.
        return home.is_relative_to(root) and path.is_relative_to(home) and any(part.startswith(".") for part in inside)
