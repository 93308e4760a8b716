"""What the workstation keeps of a box: its file in the inventory, its host keys, its entry in hosts.json.

The inventory's file is the record: it says where the box is, so that a later run needs only its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farmhand.aws.boxes.keys import HostKey, is_key, known_hosts_text
from farmhand.core import files
from farmhand.core.errors import NotConfigured, Refused

_MARK = "# Written by playbooks/box.yml, which replaces it. Your own variables go into host_vars/{name}.yml."
_MARK_BEGINS = "# Written by playbooks/box.yml"
#: The inventory's group of a box that has no address yet. No playbook and no command runs there.
_UNFINISHED = "farmhand_unfinished"


@dataclass(frozen=True)
class BoxRecord:
    """One box as its inventory file has it. `box` is how it was made. `address` is "" until it is there."""

    name: str
    address: str
    user: str
    box: dict[str, Any] = field(default_factory=dict)
    host_keys: tuple[HostKey, ...] = ()
    identity: str = ""

    def text(self) -> str:
        """Return the file: YAML that is JSON as well, below a comment."""
        host: dict[str, Any] = {"ansible_host": self.address, "ansible_user": self.user} if self.address else {}
        if self.identity:
            host["ansible_ssh_private_key_file"] = self.identity
        host["farmhand_box"] = self.box | {"host_keys": [f"{key.kind} {key.blob}" for key in self.host_keys]}
        body = json.dumps({"farm" if self.address else _UNFINISHED: {"hosts": {self.name: host}}}, indent=2)
        return f"---\n{_MARK.format(name=self.name)}\n{body}\n"


def read_record(path: str, name: str) -> BoxRecord | None:
    """Return the record in `path`, None if there is no file. Raise Refused for a file that is not ours."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"{path} cannot be read: {error}") from None
    if _MARK_BEGINS not in text:
        raise Refused(f"{path} was not written by playbooks/box.yml", hint="give another box_name, or move the file")
    body = "\n".join(line for line in text.splitlines() if not line.startswith(("#", "---")))
    try:
        document = json.loads(body)
        host = document.get("farm", document.get(_UNFINISHED))["hosts"][name]
        begun = "farm" in document
        box = dict(host["farmhand_box"])
        keys = [HostKey(*line.split()) for line in box.pop("host_keys")]
        if not all(is_key(*key) for key in keys):
            raise ValueError("host_keys")
        return BoxRecord(
            name=name,
            address=str(host["ansible_host"]) if begun else "",
            user=str(host["ansible_user"]) if begun else "",
            box=box,
            host_keys=tuple(keys),
            identity=str(host.get("ansible_ssh_private_key_file", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotConfigured(
            f"{path} is not as playbooks/box.yml wrote it", hint="delete it; the next run writes it again"
        ) from None


@dataclass(frozen=True)
class FileChange:
    """A file before and after. `after` "" means that it is removed if it is a record, else emptied."""

    path: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return self.before != self.after

    def prepare(self) -> None:
        """Make the file's directory, and see that a file can be made there. Raise NotConfigured."""
        directory = os.path.dirname(os.path.realpath(self.path))
        with self._explained():
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory) as probe:
                probe.write(b"x")

    def write(self) -> None:
        """Replace the file, the one behind a link, or remove it when nothing is left. Raise NotConfigured."""
        target = os.path.realpath(self.path)
        with self._explained():
            if self.after:
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            if not self.after and self.path.endswith(".yml"):
                os.unlink(self.path)
            else:
                files.replace(target, self.after.encode("utf-8", "surrogateescape"))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NotConfigured(f"{self.path} cannot be written: {error.strerror}") from None


def record_change(path: str, record: BoxRecord | None) -> FileChange:
    """Return the change of the inventory's file; None takes it out."""
    return FileChange(path, _read(path), record.text() if record else "")


def known_hosts_change(path: str, keys: Mapping[str, Sequence[HostKey]]) -> FileChange:
    """Return the change of known_hosts after which each address in `keys` has those keys and no others."""
    before = after = _read(path)
    for address, wanted in keys.items():
        after = known_hosts_text(after, address, 22, wanted)
    return FileChange(path, before, after)


def hosts_change(path: str, name: str, address: str) -> FileChange | None:
    """Return the change of hosts.json that takes the box out, None if it is not in it."""
    before = _read(path)
    try:
        document = json.loads(before)
        if document["hosts"][name]["address"] != address:
            return None
        del document["hosts"][name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return FileChange(path, before, json.dumps(document, indent=2, sort_keys=True) + "\n")


def _read(path: str) -> str:
    """Return the text of a file, "" if there is none. Bytes that are not UTF-8 survive."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NotConfigured(f"{path} is not a regular file", hint="name another one")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise NotConfigured(f"{path} cannot be read: {error.strerror}") from None
