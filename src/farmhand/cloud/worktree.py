"""A repository inside a sandbox: unpacked before the CLI starts, and its patch afterwards. Standard library only.

All of it runs as the task's own user behind the wall, because git runs what a repository's files and settings name. The
patch is made against a copy of the repository that was set aside before the task began.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

#: Where a task may leave other files, below the repository.
OUT = ".farmhand/out"
_PIECE = 48 * 1024
_IDENTITY = "[user]\n\tname = Claude\n\temail = noreply@anthropic.com\n[advice]\n\tdetachedHead = false\n"
#: Nothing is run, and no file of the task's home says what belongs to the patch.
_SETTINGS = tuple(
    word
    for setting in ("fsmonitor=false", "hooksPath=/dev/null", "excludesFile=/dev/null", "attributesFile=/dev/null")
    for word in ("-c", f"core.{setting}")
)

Send = Callable[[dict[str, Any]], None]
Seen = dict[bytes, tuple[int, ...]]


class Unusable(Exception):
    """The repository cannot be unpacked, or its patch not be made."""


def unpack(home: str, repo: dict[str, Any], source: BinaryIO) -> str:
    """Read the bundle from `source` and check its commit out. Return the directory to start in. Raise Unusable."""
    bundle, work = f"{home}/source.bundle", f"{home}/work"
    _receive(bundle, int(repo["bundle_bytes"]), source)
    with open(f"{home}/.gitconfig", "w", encoding="ascii") as file:
        file.write(_IDENTITY)
    _git(home, (), "init", "--quiet", f"--object-format={'sha1' if len(repo['commit']) == 40 else 'sha256'}", work)
    if repo.get("shallow"):
        with open(f"{work}/.git/shallow", "w", encoding="ascii") as file:
            file.write("".join(f"{commit}\n" for commit in repo["shallow"]))
    _git(home, ("-C", work), "fetch", "--quiet", bundle, repo["ref"])
    os.unlink(bundle)
    shutil.copytree(f"{work}/.git", f"{home}/base.git", copy_function=_linked)
    _git(home, ("-C", work), "checkout", "--quiet", "-B", "farmhand", repo["commit"])
    with open(f"{work}/.git/info/exclude", "a", encoding="ascii") as file:
        file.write("/.farmhand/\n")
    start = os.path.join(work, repo.get("subdir", ""))
    if not os.path.isdir(start):
        raise Unusable(f"it has no directory {repo['subdir']!r}")
    return start


def _receive(bundle: str, left: int, source: BinaryIO) -> None:
    """Write `left` bytes of `source` to a file. All are read even if they find no room: the daemon is still sending."""
    failed: OSError | None = None
    with open(bundle, "wb", buffering=0) as file:
        while left > 0:
            piece = source.read(min(left, 1 << 20))
            if not piece:
                raise EOFError
            left -= len(piece)
            try:
                if failed is None:
                    file.write(piece)
            except OSError as error:
                failed = error
    if failed is not None:
        raise Unusable(f"there is no room for it: {failed.strerror}")


def _linked(source: str, target: str) -> None:
    """Link git's objects, which never change, and copy all else."""
    if "/objects/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def look(home: str) -> Seen:
    """Return what tells a file of the repository that was touched since from one that was not."""
    names = _git(home, ("-C", f"{home}/work"), "ls-files", "-z").split(b"\0")
    return {name: _look_at(home, name) for name in names if name}


def _look_at(home: str, name: bytes) -> tuple[int, ...]:
    try:
        found = os.lstat(os.path.join(os.fsencode(home), b"work", name))
    except OSError:
        return ()
    # A file's user cannot set back the time of its last change of status.
    return (found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns)


def _put_back(home: str, where: tuple[str, ...], commit: str, before: Seen) -> None:
    """Give the index the commit's own entry for every file that nobody has touched.

    Git stores some files otherwise than they are in the commit as soon as they are added again: lines that end as
    .gitattributes does not say, an encoding that does not go both ways.
    """
    parts = _git(home, where, "diff-index", "--cached", "--raw", "--no-renames", "--no-abbrev", "-z", commit)
    rows = parts.split(b"\0")
    entries = []
    for head, name in zip(rows[::2], rows[1::2], strict=False):
        old_mode, _, old_blob, _, _ = head.removeprefix(b":").split(b" ")
        if name in before and before[name] == _look_at(home, name):
            entries.append(old_mode + b" " + old_blob + b"\t" + name + b"\0")
    if entries:
        _git(home, where, "update-index", "-z", "--index-info", data=b"".join(entries))


def _make_plain(work: str) -> None:
    """Make all files readable, and repositories inside the repository plain directories: git would not take them."""
    for directory, names, files in os.walk(work):
        if directory == work:
            names[:] = [name for name in names if name not in (".git", ".farmhand")]
        elif ".git" in names:
            names.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"), ignore_errors=True)
        elif ".git" in files:
            files.remove(".git")
            os.unlink(os.path.join(directory, ".git"))
        for name, least in (*((name, 0o700) for name in names), *((name, 0o400) for name in files)):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):  # something that the task has left running may remove it
                mode = os.lstat(path).st_mode
                if not stat.S_ISLNK(mode) and mode & least != least:
                    os.chmod(path, stat.S_IMODE(mode) | least)


def collect(home: str, repo: dict[str, Any], before: Seen, send: Send) -> None:
    """Send the patch of what has changed since the commit, and the files left in OUT. Raise Unusable.

    `before` is what `look` said before the task began. A file that git does not take is left out, and then raised.
    """
    work, base = f"{home}/work", f"{home}/base.git"
    where = (f"--git-dir={base}", f"--work-tree={work}")
    _make_plain(work)
    _git(home, where, "read-tree", repo["commit"])
    left_out: Unusable | None = None
    try:
        _git(home, where, "add", "--all", "--ignore-errors", "--", ".", ":(exclude,top).farmhand")
    except Unusable as error:
        # One file that git does not take; the others are not lost for it.
        left_out = error
    _put_back(home, where, repo["commit"], before)
    most = repo["limits"]
    _send("changes.patch", _patch(home, where, repo["commit"], most["changes.patch"]), send)
    out = os.path.join(work, OUT)
    if os.path.isdir(out):
        with open(f"{home}/artifacts.tar", "w+b") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(out, ".", filter=lambda info: info if info.isfile() or info.isdir() else None)
            file.seek(0)
            _send("artifacts.tar", _pieces(file, most["artifacts.tar"]), send)
    if left_out is not None:
        raise left_out


def _send(name: str, pieces: Iterator[bytes], send: Send) -> None:
    for piece in pieces:
        send({"type": "farmhand.file", "name": name, "data": base64.b64encode(piece).decode()})


def _pieces(file: BinaryIO, most: int) -> Iterator[bytes]:
    while most > 0 and (piece := file.read(min(_PIECE, most))):
        most -= len(piece)
        yield piece


def _environment(home: str) -> dict[str, str]:
    """Return git's environment. The settings in the task's own home do not count: they could make another patch."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


def _git(home: str, where: tuple[str, ...], *words: str, data: bytes = b"") -> bytes:
    command = ["git", *_SETTINGS, *where, *words]
    done = subprocess.run(command, env=_environment(home), input=data, capture_output=True, cwd=home, check=False)
    if done.returncode:
        raise Unusable(f"git {words[0]}: {_reason(done.stderr)}")
    return done.stdout


def _patch(home: str, where: tuple[str, ...], commit: str, most: int) -> Iterator[bytes]:
    """Yield the patch from `commit` to the index, `most` bytes at most. Raise Unusable if git fails before that."""
    words = ("diff", "--cached", "--binary", "--no-ext-diff", "--no-textconv", "--no-renames", commit)
    with tempfile.TemporaryFile(dir=home) as errors:
        process = subprocess.Popen(
            ["git", *_SETTINGS, *where, *words], env=_environment(home), cwd=home, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
        sent = 0
        for piece in _pieces(process.stdout, most):  # type: ignore[arg-type]
            sent += len(piece)
            yield piece
        process.stdout.close()
        if process.wait() and sent < most:
            errors.seek(0)
            raise Unusable(f"git diff: {_reason(errors.read())}")


def _reason(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
    return next((line for line in lines if line.startswith(("error:", "fatal:"))), lines[-1])[:300]
