"""The sources of the metered key, and reading the key from them.

file:PATH[#NAME]       a KEY=VALUE file; NAME defaults to ANTHROPIC_API_KEY
env:NAME               an environment variable
keyring:SERVICE/USER   the desktop's keyring, with the extra `keyring`
command:ARGV           the output of a program, run without a shell
secretsmanager:NAME    the current version of a secret on AWS, by name or ARN, with the extra `aws`

Every failure is a WireError `not_configured`. No message contains the key or any part of a value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import envfile, keys
from .errors import WireError, not_configured
from .keys import DEFAULT_SOURCE, Credential

if TYPE_CHECKING:
    from .settings import Settings

DEFAULT_NAME = "ANTHROPIC_API_KEY"
MAX_FILE_BYTES = 1024 * 1024
#: Long enough to type a passphrase into a password manager's prompt.
COMMAND_TIMEOUT_S = 120.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORMS = "file:PATH[#NAME], env:NAME, keyring:SERVICE/USER, command:ARGV or secretsmanager:NAME"
#: Kinds that need more than the standard library: the module with their `read_text`, imported only for such a source.
#: A name and no import: this package is below all others, and runs on hosts where those are not installed.
_ELSEWHERE = {"secretsmanager": "farmhand.aws.credentials.secret_source"}


def read_key(source: str = DEFAULT_SOURCE) -> str:
    """Return the key from `source` after checking its format. Raise WireError `not_configured`."""
    text, where = read_text(source)
    try:
        return keys.check_format(text)
    except ValueError as error:
        raise not_configured(f"{where}: {error}", "put the metered API key there") from None


def credential(
    conf: Settings, hosts: int = 1, *, every: bool = False, read: Callable[[str], str] = read_key
) -> Credential:
    """Return what goes with tasks to one of so many hosts: the key, or those of the pots (see `pots.keys_of`)."""
    if not conf.pots:
        return read(conf.key_source)
    from .pots import keys_of

    return keys_of(conf.pots, conf.pot, max(1, hosts), every=every, read=read)


def read_text(source: str) -> tuple[str, str]:
    """Return the text that `source` holds, whatever it is, and where that is. Raise WireError `not_configured`."""
    kind, _, rest = source.partition(":")
    readers = {"file": _from_file, "env": _from_env, "keyring": _from_keyring, "command": _from_command}
    if rest and kind in _ELSEWHERE:
        return _from_elsewhere(kind, rest)
    if not rest or kind not in readers:
        # The text may be a key pasted by mistake, so it is not repeated.
        raise not_configured("the key source is not of a known form", f"use {FORMS}")
    return readers[kind](rest)


def _from_elsewhere(kind: str, rest: str) -> tuple[str, str]:
    from importlib import import_module

    try:
        module = import_module(_ELSEWHERE[kind])
    except ModuleNotFoundError as error:
        raise not_configured(f"key source {kind}: the Python package {error.name} is missing") from None
    text, where = module.read_text(rest)
    return str(text), str(where)


def _from_file(rest: str) -> tuple[str, str]:
    path, hash_sign, name = rest.rpartition("#")
    if not hash_sign:
        path, name = rest, DEFAULT_NAME
    if not path or _NAME.fullmatch(name) is None:
        raise not_configured(f"key source file:{rest}: not of the form file:PATH#NAME", f"use {FORMS}")
    path = os.path.expanduser(path)
    try:
        values = envfile.parse(read_private(path))
    except envfile.EnvFileError as error:
        raise not_configured(f"{path}, {error}", "the file is parsed, never run by a shell") from None
    if name not in values:
        raise not_configured(f"{path} sets no {name}", f"add the line {name}=… or name another key source")
    return values[name], f"{path}, {name}"


def read_private(path: str) -> str:
    """Return the text of a file that only its owner can read. Check the open file, so that it cannot be swapped."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = f"write {DEFAULT_NAME}=… into it and chmod 600 it, or name another key source"
        raise not_configured(f"the key file {path} cannot be read: {error.strerror}", hint) from None
    try:
        _check_private(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise not_configured(f"the key file {path} is not UTF-8 text") from None
    finally:
        os.close(descriptor)


def _check_private(path: str, status: os.stat_result) -> None:
    mode, me = stat.S_IMODE(status.st_mode), os.geteuid()
    for wrong, what, hint in (
        (not stat.S_ISREG(status.st_mode), "is not a regular file", ""),
        (status.st_uid != me, "belongs to another user", f"chown it to uid {me}"),
        (mode & 0o177, f"has mode {mode:04o}: others could read it", f"chmod 600 {path}"),
        (status.st_size > MAX_FILE_BYTES, f"is larger than {MAX_FILE_BYTES} bytes", ""),
    ):
        if wrong:
            raise not_configured(f"the key file {path} {what}", hint)


def _from_env(name: str) -> tuple[str, str]:
    if _NAME.fullmatch(name) is None:
        raise not_configured("key source env: what follows is not a variable's name", "use env:NAME")
    value = os.environ.get(name)
    if value is None:
        raise not_configured(f"the environment variable {name} is not set", "set it or name another key source")
    return value, f"the environment variable {name}"


def _from_keyring(rest: str) -> tuple[str, str]:
    service, slash, user = rest.rpartition("/")
    if not slash or not service or not user:
        raise not_configured(f"key source keyring:{rest}: not of the form keyring:SERVICE/USER")
    try:
        import keyring
    except ImportError:
        raise not_configured("the Python package keyring is not installed", "pip install keyring") from None
    try:
        value = keyring.get_password(service, user)
    except Exception as error:  # backends raise any type; the text may quote secrets, so only the type is shown
        raise not_configured(f"the keyring failed for {service}/{user}: {type(error).__name__}") from None
    if value is None:
        raise not_configured(f"the keyring has no {service}/{user}", f"keyring set {service} {user}")
    return str(value), f"the keyring's {service}/{user}"


def _from_command(rest: str) -> tuple[str, str]:
    import shlex
    import subprocess

    try:
        argv = shlex.split(rest)
    except ValueError as error:
        raise not_configured(f"key source command: cannot be split into words: {error}") from None
    if not argv:
        raise not_configured("key source command: names no program")
    program = keys.redact(argv[0])
    try:
        # stdin may be the prompt and stderr may contain secrets: the program shares neither.
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        done = subprocess.run(argv, stdin=nothing, stdout=pipe, stderr=nothing, timeout=COMMAND_TIMEOUT_S, check=False)
    except OSError as error:
        raise not_configured(f"the key command {program} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise not_configured(f"the key command {program} did not end within {COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        hint = "run it by itself to see why"
        raise not_configured(f"the key command {program} ended with status {done.returncode}", hint)
    text = done.stdout.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    if "\n" in text:
        raise not_configured(f"the key command {program} printed more than one line", "print the key and nothing else")
    return text, f"the output of {program}"


__all__ = ["DEFAULT_NAME", "DEFAULT_SOURCE", "WireError", "read_key", "read_text"]
