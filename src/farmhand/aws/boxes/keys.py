"""Public keys: the operator's own, and the host keys that the provider's API tells. No private key is ever opened."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from farmhand.core.errors import NotConfigured, Refused

#: Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; DSA is gone from OpenSSH 10.
_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_USUAL = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
_LARGEST = 16384
#: Source: cloud-init's write-ssh-key-fingerprints. A line may begin with the kernel's clock or syslog's tag.
_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(rf"({'|'.join(_KINDS)})[ \t]+(AAAA[A-Za-z0-9+/]+=*)")


class HostKey(NamedTuple):
    """A host key: its kind and its base64."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return _fingerprint(self.blob)


class PublicKey(NamedTuple):
    """The operator's public key: the file, kind and base64. A comment is left out: it may name people and machines."""

    path: str
    kind: str
    blob: str

    @property
    def line(self) -> str:
        """As a line of authorized_keys."""
        return f"{self.kind} {self.blob} farmhand"

    @property
    def short(self) -> str:
        """12 characters that tell keys apart, fit for a tag."""
        return hashlib.sha256(self.blob.encode("ascii")).hexdigest()[:12]


def public_key(path: str) -> PublicKey:
    """Return the operator's public key; "" means the usual file below ~/.ssh. Raise NotConfigured.

    A path that does not end in .pub is not opened, since it may be the private key.
    """
    if not path:
        usual = [os.path.join(os.path.expanduser("~/.ssh"), name) for name in _USUAL]
        path = next((name for name in usual if os.path.exists(name)), "")
        if not path:
            hint = "make one: ssh-keygen -t ed25519; or box_public_key=PATH"
            raise NotConfigured("there is no public key in ~/.ssh", hint=hint)
    path = os.path.expanduser(path)
    if not path.endswith(".pub"):
        raise NotConfigured(f"box_public_key {path} is not opened: its name does not end in .pub", hint=f"{path}.pub")
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST)
    except OSError as error:
        raise NotConfigured(f"box_public_key {path} cannot be read: {error.strerror}") from None
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip() and line[0] != "#"]
    words = lines[0].split() if len(lines) == 1 else []
    if len(words) < 2 or not is_key(words[0], words[1]):
        raise NotConfigured(
            f"box_public_key {path} is not one public key of OpenSSH ({', '.join(_KINDS)})",
            hint="ssh-keygen -y -f KEY > KEY.pub makes it from a private key",
        )
    return PublicKey(path, words[0], words[1])


def is_key(kind: str, blob: str) -> bool:
    """Return whether `blob` is a whole key of that kind: base64 of fields with their lengths, the first is the kind.

    Source: RFC 4253, 6.6. A key that was cut anywhere is none.
    """
    if kind not in _KINDS:
        return False
    try:
        rest = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return False
    fields = []
    while rest:
        if len(rest) < 4:
            return False
        (length,) = struct.unpack(">I", rest[:4])
        if len(rest) < 4 + length:
            return False
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    least = {"ssh-ed25519": 2}.get(kind, 3)
    return len(fields) == least and fields[0] == kind.encode("ascii")


def console_keys(text: str) -> list[HostKey]:
    """Return the host keys of the last whole block on a console, [] if there is none yet. Cut keys are left out."""
    for block in reversed(_BLOCK.findall(text)):
        found = dict.fromkeys(HostKey(*each) for each in _KEY.findall(block) if is_key(*each))
        if found:
            return list(found)
    return []


def lightsail_keys(attributes: Sequence[Mapping[str, object]]) -> list[HostKey]:
    """Return the keys of GetInstanceAccessDetails. Raise Refused if one is not what its own fingerprint says."""
    found = []
    for each in attributes:
        kind = str(each.get("algorithm", ""))
        words = [word for word in str(each.get("publicKey", "")).split() if word.startswith("AAAA")]
        if kind not in _KINDS or not words:
            continue
        if not is_key(kind, words[0]):
            raise Refused(f"Lightsail's API gives a host key {kind} that is none", hint="run this again")
        key = HostKey(kind, words[0])
        said = str(each.get("fingerprintSHA256", ""))
        if said and said.removeprefix("SHA256:").rstrip("=") != key.fingerprint.removeprefix("SHA256:"):
            raise Refused(f"Lightsail's API gives a host key {kind} with another key's fingerprint, {said}")
        found.append(key)
    return found


def known_hosts_text(before: str, address: str, port: int, keys: Sequence[HostKey]) -> str:
    """Return a known_hosts file in which `address` has these keys and no others; all other lines stay as they are.

    Lines with several names lose only this one. Markers (@cert-authority, @revoked) and patterns are the operator's.
    """
    name = address if port == 22 else f"[{address}]:{port}"
    wanted = [f"{name} {key.kind} {key.blob}" for key in keys]
    kept, have = [], []
    for line in before.removesuffix("\n").split("\n") if before else []:
        rest = _without(line, name)
        if rest == line:
            kept.append(line)
        elif " ".join(line.split()[:3]) in wanted and line not in have:
            kept.append(line)
            have.append(" ".join(line.split()[:3]))
        elif rest:
            kept.append(rest)
    text = "\n".join(kept + [line for line in wanted if line not in have])
    return f"{text}\n" if text else ""


def _without(line: str, name: str) -> str:
    """Return the line without `name`, "" if no other name is left."""
    words = line.split()
    if len(words) < 3 or words[0].startswith(("#", "@")):
        return line
    names = words[0].split(",")
    left = [each for each in names if each != name and not _is_hash_of(each, name)]
    if left == names:
        return line
    return line.replace(words[0], ",".join(left), 1) if left else ""


def _is_hash_of(each: str, name: str) -> bool:
    """Return whether `each` is a hashed name. Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT; HashKnownHosts."""
    parts = each.split("|")
    if len(parts) != 4 or parts[:2] != ["", "1"]:
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _fingerprint(blob: str) -> str:
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
