"""The credentials of one environment on AWS: put, retired, removed, looked at. Both front ends are made of this.

Everything that can be checked is checked before anything is written: the credential, what the API says of it, the
place, the table. In check mode all of that happens, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from farmhand.aws.client import Aws
from farmhand.aws.credentials.baked import BakedStore, WorkerImage
from farmhand.aws.credentials.credential import Credential, read, stamp
from farmhand.aws.credentials.expiry import Entry, ExpiryTable, Record, entry_of
from farmhand.aws.credentials.store import CredentialStore, Held, ObjectStore, SecretStore, check_key_arn, stack_key
from farmhand.aws.environment.baked_images import BakedImages
from farmhand.aws.names import KINDS
from farmhand.core.errors import FarmhandError, FarmUnreachable, NotConfigured, UsageError
from farmhand.core.settings import Settings
from farmhand.core.task_access import OF_A_PLAN

PLACES = ("secretsmanager", "s3", "image")
#: The usual source of a kind, as this machine's note has it.
USUAL = "usual"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of a credential. It never has a value: `fingerprint` tells credentials apart."""

    kind: str
    place: str
    version: str = ""
    fingerprint: str = ""
    expires_at: str = ""
    changed: bool
    before: str = ""
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        names = ("kind", "place", "version", "fingerprint", "expires_at", "changed")
        return {name: getattr(self, name) for name in names}

    def diff(self) -> dict[str, str]:
        """Return before and after as Ansible shows them, {} if nothing was changed."""
        return {"before": self.before, "after": _line(self)} if self.changed else {}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How credentials are kept. `kms_key` "" is the stack's own; `worker` is the image to build on."""

    place: str = PLACES[0]
    kms_key: str = ""
    client_side: bool = False
    accept_image: bool = False
    worker: WorkerImage = field(default_factory=WorkerImage)


def lasting(kind: str, source: str) -> str:
    """Return the source as a later process can use it: "" for none, USUAL for that of its kind."""
    if not source:
        return USUAL if kind in ("key", "login") else ""
    if source.startswith("env:"):
        return ""
    form, colon, rest = source.partition(":")
    if form == "file" and rest:
        return f"file:{os.path.abspath(os.path.expanduser(rest))}"
    return source if colon else os.path.abspath(os.path.expanduser(source))


class Vault:
    """The credentials of `conf.aws_environment`. `prove` raises a FarmhandError if the API does not take a key."""

    def __init__(self, conf: Settings, prove: Callable[[str], None], options: Options) -> None:
        if options.place not in PLACES:
            raise UsageError(f"{options.place!r:.40} is no place for a credential", hint=f"places: {', '.join(PLACES)}")
        if options.client_side and options.place != "s3":
            raise UsageError("--client-side is for --place s3", hint="Secrets Manager encrypts with the stack's key")
        if options.kms_key:
            check_key_arn(options.kms_key)
        self.conf, self.aws, self._prove, self.options = conf, Aws(conf), prove, options
        self.table, self.record = ExpiryTable(self.aws), Record(conf.aws_environment, self._at)

    def store(self, place: str = "") -> CredentialStore:
        """Return the store of a place: the options' one by default."""
        place, options = place or self.options.place, self.options
        if place == "image":
            pushed = partial(BakedImages.of, self.aws)
            return BakedStore(self.conf, pushed, options.worker, accepted=options.accept_image)
        if place == "s3":
            return ObjectStore(self.aws, self._key, sealed=options.client_side)
        return SecretStore(self.aws, self._key, options.kms_key)

    def put(self, credential: Credential, *, source: str = "", check: bool = False) -> Stored:
        """Bring a credential to its place, after the API has taken it. Raise FarmhandError, with nothing written."""
        kind, store = credential.kind, self.store()
        if credential.expires_at is not None:  # in whole seconds, as tag and table have it
            credential = replace(credential, expires_at=float(int(credential.expires_at)))
        if isinstance(store, BakedStore):
            store.check(kind)  # it needs no login to AWS
        known, held = self.table.get(kind), store.look(kind)
        same = held is not None and held.digest == credential.digest
        if not credential.stated and (before := self._noted(credential, known)) is not None:
            credential = replace(credential, expires_at=before.expires_at)
        wanted = entry_of(credential, store.place(kind), held.version if held and same else "", source)
        refused = known is not None and known.refused != ""
        tagged = held is not None and held.tag == stamp(credential.expires_at)
        listed = self.table.missing or (known is not None and _same(known, wanted))
        changed = not (same and tagged and listed)
        notes = [*credential.notes, *self._notes(credential, known, store)]
        if changed:
            if not (same and tagged):
                store.check(kind)
            if kind == "key" and (not same or refused):
                self._prove(credential.value)
            if not check:
                version = wanted.version if same and tagged else store.put(credential)
                wanted = replace(wanted, version=version)
                self.table.put(wanted)
        if not check:
            if isinstance(store, BakedStore):
                notes.append(store.how(kind, wanted.version))
            try:
                self.record.keep(wanted)
            except NotConfigured as error:  # the credential is where it belongs; only this machine's own lines lack it
                notes.append(f"{error}: the lines of this machine do not watch it")
        return _stored(wanted, changed, notes, _before(known, held))

    def _noted(self, credential: Credential, known: Entry | None) -> Entry | None:
        """Return what the table or this machine has noted of this very credential, wherever it was: when it ends."""
        mine = [entry for entry in self.record.entries() if entry.kind == credential.kind]
        noted = [entry for entry in (known, *mine) if entry is not None]
        return next((entry for entry in noted if entry.fingerprint == credential.fingerprint), None)

    def retire(self, kind: str, *, here: bool = False, check: bool = False) -> Stored:
        """Remove what the current credential has replaced. `here` is as for `remove`."""
        known, store = self._found(kind, here=here)
        held = store.look(kind)
        if held is None:
            missing = known or Entry(kind=kind, place=store.place(kind), fingerprint="")
            raise NotConfigured(f"there is no {kind} in {store.place(kind)}", hint=missing.renewal)
        changed = held.previous
        if changed and not check:
            store.retire(kind)
        entry = known or Entry(kind=kind, place=store.place(kind), fingerprint="", version=held.version)
        before = f"{_line(_stored(entry, False, [], ''))}previous: there\n"
        return _stored(entry, changed, [], before)

    def remove(self, kind: str, *, here: bool = False, check: bool = False) -> Stored:
        """Remove the credential from its place, from the table, and from this machine's note.

        Its place is that of the table; with `here` that of the options. What is in another place stays, with its entry.
        """
        known, store = self._found(kind, here=here)
        if isinstance(store, BakedStore):
            store.check_engine()
        held = store.look(kind)
        changed, notes = held is not None or known is not None, []
        if not check:
            if held is not None:
                notes.append(store.remove(kind))
            if known is not None:
                self.table.delete(kind)
            self.record.forget(kind, store.place(kind) if here else "")
        gone = Entry(kind=kind, place=store.place(kind), fingerprint="")
        return _stored(gone, changed, notes, _before(known, held))

    def moved(self, kind: str, fingerprint: str, version: str) -> None:
        """Note that a rotation has made another version current; when it ends is not known."""
        store = SecretStore(self.aws, self._key)
        store.secret(kind).tag(expires_at="")
        entry = Entry(kind=kind, place=store.place(kind), fingerprint=fingerprint, version=version)
        if self.table.get(kind) is not None:
            self.table.put(entry)
        if any(noted.kind == kind for noted in self.record.entries()):
            self.record.keep(entry)

    def status(self, warn_days: float, now: float | None = None, *, check: bool = False) -> list[dict[str, Any]]:
        """Return a row for each kind that is anywhere; `trouble` is "" for what is fine. No credential is read.

        This machine's note forgets what is nowhere any more, but with `check`.
        """
        now = time.time() if now is None else now
        rows = []
        for kind in KINDS:
            known, store = self._found(kind)
            held = store.look(kind)
            if known is None and held is None:
                if not check:
                    self.record.forget(kind)
                continue
            entry = known or Entry(kind=kind, place=store.place(kind), fingerprint="")
            trouble = entry.trouble(warn_days, now)
            if held is None:
                trouble = f"it is not in {entry.place} any more"
            elif known is not None and known.version != held.version:
                entry = replace(entry, fingerprint="", version=held.version)
                trouble = trouble or "another one was put there by something else: put it again"
            elif known is None:
                trouble = trouble or "the table does not know it, so nobody watches its end: put it again"
            if store.weaker.startswith("whoever"):
                trouble = trouble or store.weaker
            ends = entry.expires_at
            rows.append(
                {
                    **{name: getattr(entry, name) for name in ("kind", "place", "fingerprint", "version")},
                    "expires_at": stamp(ends),
                    "days_left": None if ends is None else round((ends - now) / 86400, 2),
                    "previous": bool(held and held.previous),
                    "weaker": store.weaker,
                    "trouble": trouble,
                }
            )
        return rows

    def renew(self, now: float | None = None) -> tuple[list[Stored], dict[str, FarmhandError]]:
        """Put again what has changed in the source that this machine noted. Return that, and by kind what failed.

        One that fails keeps no other from being put. Raise what says that nobody answers.
        """
        done: list[Stored] = []
        failed: dict[str, FarmhandError] = {}
        for entry in self.record.entries():
            if not entry.source:
                continue
            place = entry.place.partition(":")[0]
            options = replace(self.options, place=place, client_side=entry.place.endswith(".esdk"))
            try:
                credential = read(entry.kind, "" if entry.source == USUAL else entry.source, self.conf, now=now)
                done.append(Vault(self.conf, self._prove, options).put(credential, source=entry.source))
            except FarmhandError as error:
                if error.exit_code == FarmUnreachable.exit_code:
                    raise
                failed[entry.kind] = error
        return done, failed

    def _at(self) -> str:
        return f"{self.aws.account}@{self.aws.region}"

    def _found(self, kind: str, *, here: bool = False) -> tuple[Entry | None, CredentialStore]:
        """Return the table's entry of a kind, and the store where that says the credential is.

        With `here` return the options' store, and the entry if it is of that.
        """
        if kind not in KINDS:
            raise UsageError(f"{kind!r:.40} is not a kind of credential", hint=f"kinds: {', '.join(KINDS)}")
        known = self.table.get(kind)
        place = known.place if known else ""
        if here:
            store = self.store()
            return known if place == store.place(kind) else None, store
        if place.startswith("s3:"):
            return known, ObjectStore(self.aws, self._key, sealed=place.endswith(".esdk"))
        scheme = place.partition(":")[0]
        return known, self.store(scheme if scheme in PLACES else self.options.place)

    def _key(self) -> str:
        return self.options.kms_key or stack_key(self.aws)

    def _notes(self, credential: Credential, known: Entry | None, store: CredentialStore) -> list[str]:
        notes = []
        if credential.kind in OF_A_PLAN:
            notes.append("it was not tried: only the unmodified claude may use a credential of a plan")
        if store.weaker:
            notes.append(f"{store.place(credential.kind)} is a weaker place than Secrets Manager: {store.weaker}")
        if known is not None and known.place != store.place(credential.kind):
            where = known.place.partition(":")[0] + (" --client-side" if known.place.endswith(".esdk") else "")
            takes = f"farmhand cloud credential remove --kind {credential.kind} --place {where} --yes"
            notes.append(f"the older one stays in {known.place}: {takes} takes it out there")
        if self.table.missing:
            notes.append(f"there is no table {self.aws.names.base}: nobody watches when it ends (farmhand cloud up)")
        return notes


def _same(known: Entry, wanted: Entry) -> bool:
    ends = [None if entry.expires_at is None else round(entry.expires_at) for entry in (known, wanted)]
    alike = all(getattr(known, name) == getattr(wanted, name) for name in ("place", "fingerprint", "version"))
    return alike and ends[0] == ends[1] and not known.refused


def _stored(entry: Entry, changed: bool, notes: list[str], before: str) -> Stored:
    return Stored(
        kind=entry.kind,
        place=entry.place,
        version=entry.version,
        fingerprint=entry.fingerprint,
        expires_at=stamp(entry.expires_at),
        changed=changed,
        before=before,
        notes=tuple(note for note in notes if note),
    )


def _before(known: Entry | None, held: Held | None) -> str:
    if held is None:
        return "credential: none\n"
    if known is None or known.version != held.version:
        return "credential: one that is not in the table\n"
    return _line(_stored(known, False, [], ""))


def _line(stored: Stored) -> str:
    if not stored.fingerprint:
        return "credential: none\n"
    return f"credential: {stored.fingerprint}\nplace: {stored.place}\nends: {stored.expires_at or 'not known'}\n"
