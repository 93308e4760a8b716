"""Which files a session may have sent: those in the client's roots, and no file that is known to hold secrets."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from farmhand.core.decoding import is_utf_16
from farmhand.core.errors import Refused, UsageError
from farmhand.core.keys import KEY

#: The most files of one call.
MOST = 10_000
#: The most names of directories that are looked through for them.
_MOST_SEEN = 200_000
_MOST_BYTES = 64 * 1024 * 1024
#: The names of files that hold secrets, and of directories that do. An example of one is none.
_SECRET = re.compile(
    r"\.env(\..+)?|.+\.env|\.envrc|\.netrc|_netrc|\.pgpass|\.my\.cnf|\.git-credentials|\.npmrc|\.pypirc|\.htpasswd|"
    r"\.credentials\.json|\.?credentials(\.(json|toml|ya?ml|ini))?|.*secrets?\.(json|toml|ya?ml|ini)|kubeconfig|"
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|.+_(rsa|ed25519)|.+\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|gpg|token)|"
    r"\.?vault[-_]?pass(word)?(\..*)?|\.?(bash|zsh|python|psql|mysql|sqlite)_history|auth\.json|\.claude\.json",
    re.IGNORECASE | re.DOTALL,
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
        #: Set by whoever no longer waits for what is looked for here.
        self.called_off = False

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
        if is_utf_16(content):  # which is read, as text
            content = content.decode("utf-16", "replace").encode("utf-8", "replace")
        if _PRIVATE.search(content):
            raise Refused(f"{given!r:.200} holds a key: it is not sent", hint="leave it out", code="secret_file")
        return path

    def files(self, names: Sequence[str]) -> tuple[list[Path], list[str]]:
        """Return the files of these names, directories and patterns, and the names that were left out of directories.

        A name that is given is refused where it may not be read; below a directory such a file is left out. Raise
        UsageError if there is no file at all.
        """
        found: dict[Path, None] = {}
        left_out: list[str] = []
        for name in names:
            if "\0" not in name and (self._base(name).is_dir() or self._is_pattern(name)):
                for path in self._below(name):
                    try:
                        found[self.file(str(path))] = None
                    except Refused:
                        left_out.append(self.shown(path))
            else:
                found[self.file(name)] = None
            if len(found) > MOST:
                raise UsageError(f"{name!r:.200}: more than {MOST} files", hint="name fewer", code="too_large")
        if not found:
            none = "no file is there" + (f" that may be sent (left out: {_few(left_out)})" if left_out else "")
            raise UsageError(none, hint="see the names and patterns", code="invalid_file")
        return [*found], left_out

    def shown(self, path: Path) -> str:
        """Return the path as the session knows it: relative to its root."""
        return next((str(path.relative_to(root)) for root in self.roots if path.is_relative_to(root)), str(path))

    def _base(self, given: str) -> Path:
        path = Path(os.path.expanduser(given))
        if path.is_absolute() or not self.roots:
            return path
        # In the first directory that has it, else in the first that is there: a client may name one that is gone.
        there = [root / path for root in self.roots if root.is_dir()] or [self.roots[0] / path]
        return next((one for one in there if os.path.lexists(one)), there[0])

    def _is_pattern(self, name: str) -> bool:
        return glob.has_magic(name) and not os.path.lexists(self._base(name))

    def _below(self, name: str) -> Iterator[Path]:
        """Yield the files of a directory or a pattern, in order. `**` and a directory follow no link to a directory."""
        base = self._base(name)
        parts: tuple[str, ...] = ("**", "*")
        if not base.is_dir():
            first = next(n for n, part in enumerate(base.parts) if glob.has_magic(part))
            base, parts = Path(*base.parts[:first]), base.parts[first:]
            if not base.exists():
                return
        self._checked(str(base))
        seen = 0
        left = [(str(base), _after({0}, parts))]
        while left:
            folder, at = left.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:  # no directory, or not ours to read
                continue
            seen += len(entries)
            if seen > _MOST_SEEN:
                what = f"{name!r:.200}: more than {_MOST_SEEN} names to look through"
                raise UsageError(what, hint="name a directory that is nearer to the files", code="too_large")
            folders = []
            for entry in entries:
                if self.called_off:
                    return
                stays, goes_on = _matches(entry.name, parts, at)
                if _is_directory(entry):
                    into = stays | goes_on
                    if entry.is_symlink():
                        into = goes_on if self._root_of(Path(os.path.realpath(entry.path))) else set()
                    into = _after(into, parts) - {len(parts)}
                    folders += [(entry.path, into)] if into else []
                elif (
                    len(parts) in _after(stays | goes_on, parts) and Path(entry.path).is_file()
                ):  # no pipe, no dead link
                    yield Path(entry.path)
            left += reversed(folders)

    def _root_of(self, real: Path) -> Path | None:
        return next((one for one in self.roots if real.is_relative_to(one)), None)

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
        root = self._root_of(path)
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


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _after(at: set[int], parts: Sequence[str]) -> set[int]:
    """Return the places in a pattern that are reached from these without a name: `**` may stand for none."""
    found = set(at)
    for place in range(len(parts)):
        if place in found and parts[place] == "**":
            found.add(place + 1)
    return found


def _matches(name: str, parts: Sequence[str], at: set[int]) -> tuple[set[int], set[int]]:
    """Return where a name leads from the places `at` of a pattern: those where a `**` takes it, and all others.

    As in a shell nothing but a part that begins with a dot stands for what is hidden.
    """
    open_at = {place for place in at if place < len(parts)}
    hidden = name.startswith(".")
    stays = {place for place in open_at if parts[place] == "**" and not hidden}
    fit = {place for place in open_at if parts[place] != "**" and fnmatchcase(name, parts[place])}
    return stays, {place + 1 for place in fit if not hidden or parts[place].startswith(".")}


def _few(names: Sequence[str]) -> str:
    """Return the first of these names, as they stand in a sentence."""
    quoted = [name if name.isprintable() else repr(name) for name in names[:20]]
    return ", ".join(quoted) + (" …" if len(names) > 20 else "")


def left_out_note(names: Sequence[str]) -> list[str]:
    """Return what there is to say of the names that were left out."""
    return [f"left out, since they may hold secrets or lie elsewhere: {_few(names)}"] if names else []
