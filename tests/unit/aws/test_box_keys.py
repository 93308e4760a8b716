"""known_hosts keeps what is the operator's own; keys that were cut are none; a record survives being read back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest

from farmhand.aws.boxes.keys import HostKey, console_keys, is_key, known_hosts_text, lightsail_keys
from farmhand.aws.boxes.record import BoxRecord, read_record
from farmhand.core.errors import NotConfigured, Refused

ADDRESS = "198.51.100.7"


def made(directory: Path, kind: str) -> HostKey:
    """A real key of ssh-keygen."""
    path = directory / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return HostKey(*path.with_suffix(".pub").read_text().split()[:2])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_ssh_keygen_are_whole_and_any_cut_one_is_none(tmp_path: Path, kind: str) -> None:
    key = made(tmp_path, kind)
    assert is_key(*key)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{tmp_path / kind}.pub"], capture_output=True, text=True, check=True)
    assert key.fingerprint in shown.stdout
    assert not any(is_key(key.kind, key.blob[:end]) for end in range(len(key.blob)))
    assert not is_key("ssh-dss", key.blob)


def hashed(name: str) -> str:
    """A name as HashKnownHosts writes it."""
    salt = b"0123456789abcdef0123"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def test_known_hosts_loses_only_this_address(tmp_path: Path) -> None:
    key, old = made(tmp_path, "ed25519"), made(tmp_path, "ecdsa")
    others = [
        "# a comment",
        f"@cert-authority {ADDRESS} {old.kind} {old.blob}",
        f"*.example.org {old.kind} {old.blob}",
        f"[{ADDRESS}]:2222 {old.kind} {old.blob}",
        f"{hashed('other')} {old.kind} {old.blob}",
        "half a",
        "",
    ]
    stale = [f"{ADDRESS} {old.kind} {old.blob} me", f"{hashed(ADDRESS)} {old.kind} {old.blob}"]
    before = "\n".join([*stale, *others, f"alias,{ADDRESS} {old.kind} {old.blob}"]) + "\n"

    after = known_hosts_text(before, ADDRESS, 22, [key])

    wanted = f"{ADDRESS} {key.kind} {key.blob}"
    assert after.splitlines() == [*others, f"alias {old.kind} {old.blob}", wanted]
    assert known_hosts_text(after, ADDRESS, 22, [key]) == after
    (tmp_path / "known_hosts").write_text(after)
    found = subprocess.run(
        ["ssh-keygen", "-F", ADDRESS, "-f", str(tmp_path / "known_hosts")], capture_output=True, text=True, check=True
    )
    assert found.stdout.count(key.blob) == 1
    assert known_hosts_text(f"{wanted}\n", ADDRESS, 22, []) == ""


def test_the_last_whole_block_of_a_console_counts(tmp_path: Path) -> None:
    first, second = made(tmp_path, "ed25519"), made(tmp_path, "rsa")
    begin, end = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
    whole = f"{begin}\n{first.kind} {first.blob} root@a\n{second.kind} {second.blob[:-40]}\n{end}\n"
    assert console_keys(whole) == [first]
    assert console_keys(f"{whole}{begin}\n{second.kind} {second.blob}\n") == [first]
    assert console_keys(f"{whole}{begin}\r\n{second.kind} {second.blob}\r\n{end}") == [second]
    assert console_keys("") == console_keys(f"{begin}\n{end}") == []


def test_a_fingerprint_of_another_key_is_refused(tmp_path: Path) -> None:
    key = made(tmp_path, "ed25519")
    said = {"algorithm": key.kind, "publicKey": key.blob, "fingerprintSHA256": f"{key.fingerprint}="}
    assert lightsail_keys([said, {"algorithm": "x509", "publicKey": "AAAA"}]) == [key]
    with pytest.raises(Refused, match="another key's fingerprint"):
        lightsail_keys([said | {"fingerprintSHA256": "SHA256:KTsMnRBh1IhD17HpdfsbzeGA4jOijm5tyXsMjKVbB8o"}])


@pytest.mark.parametrize("damage", ["", "{}", '{"farm": {"hosts": {"farm1": {}}}}', "["])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "farm1.yml"
    record = BoxRecord("farm1", ADDRESS, "admin", {"region": "x"}, (made(tmp_path, "ed25519"),), "/home/me/.ssh/id")
    path.write_text(record.text())
    assert read_record(str(path), "farm1") == record
    path.write_text("".join(record.text().splitlines(keepends=True)[:2]) + damage)
    with pytest.raises(NotConfigured, match="delete it; the next run writes it again"):
        read_record(str(path), "farm1")
