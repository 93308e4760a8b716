"""The key source `secretsmanager:NAME`, for reading a key and for its rotation by version stages.

NAME is the secret's name or its ARN, which has the region. Otherwise region and login are those of the settings, as
config.toml or FARMHAND_* have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from farmhand.aws.client import Aws
from farmhand.aws.credentials.secret import CURRENT, PENDING, PREVIOUS, Secret, Stages, digest
from farmhand.core.errors import FarmhandError, NotConfigured, WireError, not_configured
from farmhand.core.keys import PREFIX
from farmhand.core.settings import Settings, load

_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):\d{12}:secret:([A-Za-z0-9/_+=.@-]{1,512}?)(-\w{6})?")

Values = tuple[str, str | None, str | None]
T = TypeVar("T")


def read_text(rest: str) -> tuple[str, str]:
    """Return the current text of the secret `rest`, and where it is. Raise WireError."""
    source = SecretSource(rest)
    try:
        return source.secret.value(CURRENT), source.place
    except FarmhandError as error:
        raise _as_wire(error) from None


class SecretSource:
    """The keys of one secret: the current, the next and the previous one are its stages. Raise WireError.

    `moved` is called with the new current value and its version id after that was changed. With `conf` None the
    settings are read.
    """

    def __init__(
        self,
        rest: str,
        conf: Settings | None = None,
        moved: Callable[[str, str], None] = lambda _value, _version: None,
    ) -> None:
        arn = _ARN.fullmatch(rest)
        if PREFIX in rest or not (arn or _NAME.fullmatch(rest)):
            raise not_configured("key source secretsmanager: what follows is not the name of a secret or its ARN")
        try:
            conf = conf or load()
            aws = Aws(conf._replace(aws_region=arn[1]) if arn else conf)
            region = aws.region
            if conf.aws_account:
                _ = aws.account  # refuses another one
        except FarmhandError as error:
            raise _as_wire(error) from None
        self._conf = conf
        self.name = arn[2] if arn else rest
        self.secret = Secret(aws, rest)
        self.aws = aws
        #: Its canonical name. Two accounts are told apart by the profile.
        self.place = f"secretsmanager:{'@'.join(filter(None, (conf.aws_profile, region)))}/{self.name}"
        self._moved = moved

    def read(self) -> Values:
        """Return the stored keys: current, next, previous."""
        return self._do(self._read)

    def since(self) -> float | None:
        """Return the time of the secret's last change, in Unix seconds."""
        stages = self._do(self.secret.look)
        return None if stages is None else stages.changed

    def write(self, values: Values) -> None:
        """Store the keys. A crash here loses no key, and a repeated call completes the write."""
        self._do(lambda: self._write(values))

    def note_moved(self, fingerprint: str, version: str) -> None:
        """Update the table and the tag of an environment's own credential. Other secrets have neither."""
        from farmhand.aws.credentials.vault import Options, Vault

        prefix, environment, kind = (*self.name.split("/"), "", "")[:3]
        if (prefix, kind) != ("farmhand", "key"):
            return
        conf = self._conf._replace(aws_environment=environment, aws_region=self.aws.region)
        # A rotation goes on where this is not allowed; the status says then that something else has put the key there.
        with suppress(FarmhandError):
            Vault(conf, lambda _key: None, Options()).moved(kind, fingerprint, version)

    def _read(self) -> Values:
        stages, pending = self._stages(), None
        # A schedule of Secrets Manager makes a pending version without a value, and may leave it (moto#8504).
        if stages.next:
            with suppress(NotConfigured):
                pending = self.secret.value(PENDING)
        return (
            self.secret.value(CURRENT),
            pending,
            self.secret.value(PREVIOUS) if stages.previous else None,
        )

    def _stages(self) -> Stages:
        stages = self.secret.look()
        if stages is None or not stages.current:
            hint = "farmhand cloud credential put"
            raise not_configured(f"there is no secret {self.name} with a current version", hint)
        return stages

    def _write(self, values: Values) -> None:
        stages, held = self._stages(), self._read()
        ids = {
            value: version
            for value, version in zip(held, (stages.current, stages.next, stages.previous), strict=True)
            if value is not None
        }
        kind = self.name.rpartition("/")[2]
        for value in values:
            if value is not None and value not in ids:
                ids[value] = digest(kind, value)
                self.secret.store(value, ids[value])
        current, pending, previous = ("" if value is None else ids[value] for value in values)
        self.secret.arrange(current=current, pending=pending, previous=previous)
        if stages.current != current:
            self._moved(values[0], current)

    def _do(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except FarmhandError as error:
            raise _as_wire(error) from None


def _as_wire(error: FarmhandError) -> WireError:
    if isinstance(error, WireError):
        return error
    made = WireError(error.code, error.message, error.hint)
    made.kind, made.exit_code = type(error), error.exit_code
    return made
