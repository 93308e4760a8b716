"""The implementation of the action plugin farmhand_box: make a farm host on AWS, or take it away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from farmhand.aws.boxes import box
from farmhand.aws.boxes.box import BoxPrice, BoxProvider, BoxSeen, BoxSpec, Patience
from farmhand.aws.boxes.ec2 import Ec2
from farmhand.aws.boxes.keys import HostKey, public_key
from farmhand.aws.boxes.lightsail import Lightsail
from farmhand.aws.boxes.record import (
    BoxRecord,
    FileChange,
    hosts_change,
    known_hosts_change,
    read_record,
    record_change,
)
from farmhand.aws.client import Aws
from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.core.settings import Settings

_PROVIDERS: dict[str, Callable[[Aws], BoxProvider]] = {"lightsail": Lightsail, "ec2": Ec2}
#: What a later run takes from the record when it is not given.
_KEPT = ("zone", "size", "image", "ssh_from", "disk_gb", "usd_month")
#: What of that cannot be changed once the box is there, beside what the provider compares itself.
_FIXED = ("zone", "image", "disk_gb")


def apply(
    conf: Settings,
    given: dict[str, Any],
    *,
    check: bool,
    tell: Callable[[str], None],
    names: Collection[str] = (),
) -> dict[str, Any]:
    """Bring the box to the state that `given` (the module's options) wants; with `check` only say what would be done.

    `names` are the hosts of the inventory. Everything that can be checked is, before the first change. Raise
    FarmhandError.
    """
    name = given["name"] or ""
    box.check_name(name)
    path = os.path.join(os.path.expanduser(given["inventory_dir"]), f"{name}.yml")
    record = read_record(path, name)
    if record is None and name in names and given["state"] == "present":
        raise Refused(f"the inventory has a host {name} already, and not in {path}", hint="give another box_name")
    where = _where(conf, given, record)
    aws = Aws(conf._replace(aws_environment=where["environment"], aws_region=where["region"]))
    provider = _PROVIDERS[where["provider"]](aws)
    spec = _spec(aws, given, record, where["environment"], provider)
    box.check_region(aws.session.get_available_regions(where["provider"]), spec, where["provider"])
    account = aws.account
    if record is not None and record.box.get("account") != account:
        raise Refused(
            f"{name} is in the account {record.box.get('account')}, and this login is of {account}",
            hint="set aws_profile to the other login",
        )
    where |= {"region": spec.region, "account": account}
    run = _BoxRun(conf, given, spec, provider, record, path, where, check, tell)
    return run.present() if given["state"] == "present" else run.absent()


def _where(conf: Settings, given: dict[str, Any], record: BoxRecord | None) -> dict[str, str]:
    """Return provider, region and environment: of the record, else as given, else the settings. Raise Refused."""
    recorded = record.box if record else {}
    defaults = {"provider": "lightsail", "region": conf.aws_region, "environment": conf.aws_environment}
    asked = {name: given.get(name) or "" for name in ("provider", "region")}
    for name, value in asked.items():
        if value and recorded.get(name, value) != value:
            raise Refused(
                f"{given['name']} is on {recorded['provider']} in {recorded['region']}, not on {value}",
                hint="give another box_name, or remove that box first: -e box_state=absent",
            )
    return {name: recorded.get(name) or asked.get(name) or default for name, default in defaults.items()}


def _spec(
    aws: Aws, given: dict[str, Any], record: BoxRecord | None, environment: str, provider: BoxProvider
) -> BoxSpec:
    recorded = record.box if record else {}
    kept = {name: recorded.get(name) if given.get(name) in (None, "", []) else given[name] for name in _KEPT}
    spec = BoxSpec(
        name=given["name"],
        environment=environment,
        region=aws.region,
        zone=kept["zone"] or "",
        size=kept["size"] or provider.size,
        image=kept["image"] or provider.image,
        user=given.get("user") or (record.user if record else ""),
        disk_gb=40 if kept["disk_gb"] is None else int(kept["disk_gb"]),
        usd_month=str(kept["usd_month"] or ""),
        metrics=bool(given.get("cloudwatch")),
    )
    if given["state"] != "present":
        return spec
    if not 8 <= spec.disk_gb <= 16384:
        raise NotConfigured(f"box_disk_gb {spec.disk_gb} is not 8 to 16384")
    return replace(
        spec,
        ssh_from=box.check_ssh_from(kept["ssh_from"] or []),
        key=public_key(given.get("public_key") or recorded.get("public_key", "")),
    )


@dataclass(frozen=True)
class _BoxRun:
    """One run of the module: what is wanted, what is known, and how to do it. `path` is the record's."""

    conf: Settings
    given: dict[str, Any]
    spec: BoxSpec
    provider: BoxProvider
    record: BoxRecord | None
    path: str
    where: dict[str, str]
    check: bool
    tell: Callable[[str], None]

    def present(self) -> dict[str, Any]:
        """Make what is missing, and write down where the box is and what its host keys are."""
        spec, provider, record = self.spec, self.provider, self.record
        before = provider.look(spec)
        self._check_fixed(before)
        price = provider.check(spec, before)
        if left := provider.left_to_do(spec):
            self.tell(left)
        missing = provider.missing(spec, before)
        steps = [step.what for step in missing if step.do is not None]
        answer = self._answer(before, price, steps)
        known = self._known({})  # it can be read, or this raises
        if self.check and (missing or not before.address):
            # What only has to be awaited may change nothing; one that stops is started once it has.
            written = record is not None and record.address == before.address != ""
            changed = bool(steps) or not written or before.state == "stopping"
            lines = before.lines + "".join(f"to do: {step.what}\n" for step in missing)
            return answer | {"changed": changed, "diff": [_shown("box", before.lines, lines)], "ready": False}
        patience = self._patience()
        did: list[str] = []

        def done(what: str) -> None:
            did.append(what)
            self.tell(what)

        if steps:
            known.prepare()
            self._begin()
        try:
            seen = box.converge(lambda: provider.look(spec), lambda now: provider.missing(spec, now), patience, done)
        except FarmhandError:
            self._forget()
            raise
        same = record is not None and record.box.get("instance") == seen.instance
        keys = tuple(box.learn(provider, seen, record.host_keys if record and same else (), patience))
        now = self._record(seen, keys)
        wanted = {record.address: ()} if record and record.address else {}  # another address may be another's now
        changes = [self._known(wanted | {seen.address: keys}), record_change(self.path, now)]
        self._write(changes)
        return answer | {
            "changed": bool(steps or did) or any(change.changed for change in changes),
            "diff": [_shown("box", before.lines, seen.lines), *_diffs(changes)],
            "ready": not self.check or not any(change.changed for change in changes),
            "address": seen.address,
            "user": now.user,
            "identity": now.identity,
            "host_keys": [f"{key.kind} {key.fingerprint}" for key in keys],
            "inventory_file": self.path,
        }

    def absent(self) -> dict[str, Any]:
        """Remove the box, and what is written down of it."""
        spec, provider = self.spec, self.provider
        before = provider.look(spec)
        steps = [step.what for step in provider.surplus(spec, before) if step.do is not None]
        seen = before
        if not self.check:
            patience = self._patience()
            seen = box.converge(
                lambda: provider.look(spec), lambda now: provider.surplus(spec, now), patience, self.tell
            )
        address = (self.record.address if self.record else "") or before.reserved
        changes = []
        if address:
            changes = [self._known({address: ()})]
            of_agent = hosts_change(self.conf.hosts_name, spec.name, address)
            changes += [of_agent] if of_agent else []
        changes.append(record_change(self.path, None))
        self._write(changes)
        return self.where | {
            "name": spec.name,
            "changed": bool(steps) or any(change.changed for change in changes),
            "diff": [_shown("box", before.lines, "" if self.check else seen.lines), *_diffs(changes)],
            "steps": steps,
            "exists": before.state == "running",
            "address": address,
            "ready": False,
        }

    def _check_fixed(self, before: BoxSeen) -> None:
        """Raise Refused if the box is there and something else is asked for than it was made with."""
        made = self.record.box if self.record else {}
        for name in _FIXED:
            asked, has = self.given.get(name), getattr(before, name) or made.get(name)
            if before.state and asked not in (None, "") and has not in (None, "", asked):
                raise box.not_in_place(self.spec, f"box_{name}", has, asked)

    def _answer(self, before: BoxSeen, price: BoxPrice, steps: list[str]) -> dict[str, Any]:
        return {
            **self.where,
            "name": self.spec.name,
            "size": self.spec.size,
            "usd_month": str(round(price.usd_month, 2)),
            "price": f"US$ {price.usd_month:.2f} a month: {price.of} ({price.source})",
            "steps": steps,
            "left_to_do": self.provider.left_to_do(self.spec),
            "exists": bool(before.state),
        }

    def _record(self, seen: BoxSeen, keys: tuple[HostKey, ...]) -> BoxRecord:
        spec = self.spec
        assert spec.key is not None  # noqa: S101 - _spec read it
        secret = spec.key.path.removesuffix(".pub")
        made = {name: getattr(spec, name) for name in ("zone", "size", "image", "disk_gb", "usd_month")}
        made |= {"image": seen.image or spec.image, "disk_gb": seen.disk_gb or spec.disk_gb}
        more = {"instance": seen.instance, "ssh_from": list(spec.ssh_from), "public_key": spec.key.path}
        return BoxRecord(
            name=spec.name,
            address=seen.address,
            user=self.given.get("user") or seen.user or spec.user,
            host_keys=keys,
            identity=secret if os.path.exists(secret) else "",
            box=self.where | made | more,
        )

    def _begin(self) -> None:
        """Write down where the box is going to be, unless that is known: a run that is cut off leaves no lost box."""
        if self.record is None:
            record_change(self.path, self._record(BoxSeen(), ())).write()

    def _forget(self) -> None:
        """Take that back if nothing was made. It stays if this cannot be seen."""
        with contextlib.suppress(FarmhandError):
            if self.record is None and not self.provider.look(self.spec).lines:
                record_change(self.path, None).write()

    def _patience(self) -> Patience:
        return Patience(self.given["wait_s"], self.given["poll_s"])

    def _known(self, keys: dict[str, tuple[HostKey, ...]]) -> FileChange:
        path = os.path.expanduser(self.given["known_hosts_file"] or "~/.ssh/known_hosts")
        return known_hosts_change(path, keys)

    def _write(self, changes: list[FileChange]) -> None:
        for change in changes:
            if change.changed and not self.check:
                change.write()
                self.tell(f"write {change.path}")


def _diffs(changes: list[FileChange]) -> list[dict[str, str]]:
    return [_shown(change.path, change.before, change.after) for change in changes if change.changed]


def _shown(name: str, before: str, after: str) -> dict[str, str]:
    """Return a diff for Ansible, which takes whole characters only."""
    texts = {"before": before, "after": after}
    shown = {key: text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for key, text in texts.items()}
    return {"before_header": name, "after_header": name, **shown}
