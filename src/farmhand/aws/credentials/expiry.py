"""When credentials end: the table on AWS that the watcher reads, and this machine's own note of what it has put there.

An item of the table is `credential#ENV#KIND`: place, fingerprint, version, expires_at (Unix seconds, not there where
the end is not known). The watcher (aws/expiry.py) adds `notified` and `notified_refused`; a job that the API refused
adds `refused`. A new credential replaces the item, and so forgets them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from farmhand.aws.client import Aws
from farmhand.aws.credentials.credential import LOGIN_LEAST_S, Credential, stamp
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import NotConfigured
from farmhand.core.files import replace, xdg
from farmhand.core.typed import ready

WARN_DAYS = 14.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a credential in its place. `version` is its version id there, `source` where it was read."""

    kind: str
    place: str
    fingerprint: str
    version: str = ""
    expires_at: float | None = None
    refused: str = ""
    source: str = ""

    def trouble(self, warn_days: float = WARN_DAYS, now: float | None = None) -> str:
        """Return in a few words what is wrong or will be within `warn_days`, "" for nothing.

        A login lasts some hours: for it only the end counts.
        """
        if self.refused:
            return f"the API refused it ({self.refused:.40})"
        if self.expires_at is None:
            return ""
        left = self.expires_at - (time.time() if now is None else now)
        if left <= 0:
            return f"ended at {stamp(self.expires_at)}"
        if self.kind == "login":
            return f"ends at {stamp(self.expires_at)}" if left < LOGIN_LEAST_S else ""
        return f"ends in {left / 86400:.0f} days, on {stamp(self.expires_at)[:10]}" if left < warn_days * 86400 else ""

    @property
    def renewal(self) -> str:
        """Return the command that puts another one in its place."""
        place = self.place.partition(":")[0]
        words = ["" if self.kind == "key" else f"--kind {self.kind}"]
        words += [f"--place {place}" if place in ("s3", "image") else ""]
        words += ["--client-side" if self.place.endswith(".esdk") else ""]
        return " ".join(["farmhand cloud credential put", *filter(None, words)])


class ExpiryTable:
    """The items of one environment. Raise FarmhandError; a table that is not there yet is no error, but `missing`."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.missing = False

    def get(self, kind: str) -> Entry | None:
        """Return the entry of a kind, None if there is none."""
        found = self._call("get_item", Key=self._key(kind), ConsistentRead=True).get("Item")
        if not found:
            return None

        def text(name: str) -> str:
            return str(next(iter(found.get(name, {"S": ""}).values())))

        try:
            ends = float(text("expires_at")) if "expires_at" in found else None
        except ValueError:
            ends = None
        return Entry(
            kind=kind,
            place=text("place"),
            fingerprint=text("fingerprint"),
            version=text("version"),
            expires_at=ends,
            refused=text("refused"),
        )

    def put(self, entry: Entry) -> None:
        """Replace the item of the entry's kind."""
        item = {name: {"S": getattr(entry, name)} for name in ("place", "fingerprint", "version")}
        if entry.expires_at is not None:
            item["expires_at"] = {"N": f"{entry.expires_at:.0f}"}
        self._call("put_item", Item=self._key(entry.kind) | item)

    def delete(self, kind: str) -> None:
        """Delete the item."""
        self._call("delete_item", Key=self._key(kind))

    def _key(self, kind: str) -> dict[str, Any]:
        return {"pk": {"S": f"credential#{self._aws.names.environment}#{kind}"}}

    def _call(self, action: str, **given: Any) -> dict[str, Any]:
        table = self._aws.names.base
        with explained(f"using the table {table}"):
            try:
                answer: dict[str, Any] = getattr(self._aws.client("dynamodb"), action)(TableName=table, **given)
                return answer
            except Exception as error:
                if code_of(error) != "ResourceNotFoundException":
                    raise
                self.missing = True
                return {}


class Record:
    """This machine's note, ~/.local/state/farmhand/credentials.json. It holds no credential.

    It is by `ENVIRONMENT@ACCOUNT@REGION` and kind: an environment of the same name may be in another account or region.
    `at` returns the last two, for calls about one of them; without it the note is about all, and nothing is asked.
    Raise NotConfigured if it cannot be written; one that cannot be read is empty.
    """

    def __init__(self, environment: str, at: Callable[[], str] | None = None) -> None:
        self.path = os.path.join(xdg("XDG_STATE_HOME"), "farmhand", "credentials.json")
        self._environment, self._at = environment, at

    @property
    def _name(self) -> str:
        return f"{self._environment}@{self._at()}" if self._at else self._environment

    def entries(self) -> list[Entry]:
        """Return what was put from here."""
        wanted, found = self._name, []
        for name, kinds in sorted(self._load().items()):
            if name != wanted and (self._at or name.partition("@")[0] != wanted):
                continue
            for kind, held in sorted(kinds.items()):
                with suppress(msgspec.ValidationError):
                    found.append(msgspec.convert({**held, "kind": kind}, ready(Entry)))
        return found

    def keep(self, entry: Entry) -> None:
        """Note the entry in the place of an older one of its kind. One without a source keeps the source."""
        held = self._load()
        mine = held.setdefault(self._name, {})
        new = {name: value for name, value in vars(entry).items() if name != "kind"}
        mine[entry.kind] = {"source": mine.get(entry.kind, {}).get("source", "")} | {
            name: value for name, value in new.items() if value or name != "source"
        }
        self._save(held)

    def forget(self, kind: str, place: str = "") -> None:
        """Forget what is noted of a kind; with `place` only if it is noted as being there."""
        held = self._load()
        mine = held.get(self._name, {})
        if kind in mine and place in ("", mine[kind].get("place")):
            del mine[kind]
            self._save(held)

    def warning(self, now: float | None = None) -> str:
        """Return the line that each command for the cloud says while a credential is near its end, "" for none."""
        bad = [(entry, trouble) for entry in self.entries() if (trouble := entry.trouble(now=now))]
        return "; ".join(f"the {entry.kind} on AWS {trouble} ({entry.renewal})" for entry, trouble in bad)

    def _load(self) -> dict[str, dict[str, dict[str, Any]]]:
        try:
            with open(self.path, "rb") as file:
                held: dict[str, dict[str, dict[str, Any]]] = json.load(file)
            sound = all(isinstance(kinds, dict) for kinds in held.values())
            sound = sound and all(isinstance(entry, dict) for kinds in held.values() for entry in kinds.values())
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}
        if not sound:
            return {}
        if self._at and (older := held.pop(self._environment, None)):  # of a version that noted no account
            held[self._name] = older | held.get(self._name, {})
        return held

    def _save(self, held: dict[str, Any]) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            replace(self.path, json.dumps(held, indent=1, sort_keys=True).encode() + b"\n", mode=0o600)
        except OSError as error:
            raise NotConfigured(f"{self.path} cannot be written: {error.strerror}") from None


def entry_of(credential: Credential, place: str, version: str, source: str = "") -> Entry:
    """Return the entry of a credential in its place."""
    return Entry(
        kind=credential.kind,
        place=place,
        fingerprint=credential.fingerprint,
        version=version,
        expires_at=credential.expires_at,
        source=source,
    )
