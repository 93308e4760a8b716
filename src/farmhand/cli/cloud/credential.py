"""`farmhand cloud credential`: bring a credential to AWS, see when it ends, rotate it, take it out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from farmhand.aws.client import Aws
from farmhand.aws.credentials import federation
from farmhand.aws.credentials.baked import WorkerImage
from farmhand.aws.credentials.credential import read
from farmhand.aws.credentials.expiry import WARN_DAYS
from farmhand.aws.credentials.vault import PLACES, Options, Stored, Vault, lasting
from farmhand.aws.names import KINDS, Names
from farmhand.cli import timer
from farmhand.cli.amount import FiniteRange
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.manual import VerbGroup
from farmhand.cli.rotate import rotate, rotation_options
from farmhand.cli.say import note
from farmhand.cli.timer import Daily
from farmhand.cli.verb import VerbResult
from farmhand.core.errors import FarmhandError, UsageError
from farmhand.core.readable import counted, printable
from farmhand.core.settings import Settings, config_path
from farmhand.core.task_access import OF_A_PLAN
from farmhand.places.checkout import find_project
from farmhand.places.image import ensure, name_of
from farmhand.rotation.provider import Provider

_FEDERATION = "federation"
#: The options of a credential's place, where none was given.
_PLAIN = {"where": PLACES[0], "client_side": False, "kms_key": "", "accept_image": False}
_LOGIN = ("aws_environment", "aws_region", "aws_profile")
_ROTATE = "farmhand cloud credential rotate"


@click.group("credential", cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Bring a credential to AWS, renew it, see when it ends, take it out. Each verb has --json and --config."""


def vault(conf: Settings, **options: Any) -> Vault:
    """Return the credentials on AWS, as the settings say; `options` are those of Options."""
    return Vault(conf, Provider(conf.upstream_url).alive, Options(**options))


def _given(_context: click.Context, option: click.Parameter, value: str | None) -> str:
    """Return an option's text, "" if it was left out. An empty one is a variable of a script that is not set."""
    if value is not None and not value.strip():
        raise UsageError(f"{option.opts[0]} is empty", hint="leave it out for the default")
    return value or ""


def _text(name: str, metavar: str, about: str) -> Callable[[Any], Any]:
    return click.option(name, metavar=metavar, callback=_given, help=about)


_WARN = click.option("--warn-days", type=FiniteRange(min=0), default=WARN_DAYS, show_default=True, metavar="DAYS")


def _kind(*more: str) -> Callable[[Any], Any]:
    return click.option(
        "--kind", type=click.Choice([*KINDS, *more]), default="key", show_default=True, help="Which one."
    )


@command.add_command
@cloud_verb(
    "put",
    epilog="Exit status: 0 done or not needed, 2 usage, 3 not configured, 4 unreachable, 5 refused: expired, of "
    "another kind, a plan's without allow_subscription_cloud, or one with a refresh token.",
)
@_kind(_FEDERATION)
@_text(
    "--source",
    "SOURCE",
    "file:PATH#NAME, env:NAME, keyring:SERVICE/USER or command:ARGV; for a login, a path. Default: the key's own "
    "source; the CLI's login file.",
)
@click.option(
    "--place", "where", type=click.Choice(PLACES), default=PLACES[0], show_default=True, help="Where it is kept."
)
@_text("--expires", "DAY", "When it ends, in UTC: 2027-03-01. A setup-token: in a year.")
@click.option("--without-refresh-token", is_flag=True, help="Leave a refresh token of the source here, and go on.")
@click.option("--client-side", is_flag=True, help="With --place s3: encrypt it here as well, before it is sent.")
@_text("--kms-key", "ARN", "A key of your own in the place of the stack's.")
@click.option("--i-know-this-is-in-every-layer", "accept_image", is_flag=True, help="With --place image: build it.")
@click.option("--check", is_flag=True, help="Check all of it, and change nothing.")
@_text("--rule", "ID", "Of --kind federation: the rule.")
@_text("--organization", "ID", "Of --kind federation.")
@_text("--service-account", "ID", "Of --kind federation.")
@_text("--workspace", "ID", "Of --kind federation.")
def put(
    conf: Settings,
    *,
    as_json: bool,
    kind: str,
    source: str,
    expires: str,
    without_refresh_token: bool,
    check: bool,
    **given: Any,
) -> VerbResult:
    """Bring a credential to its place on AWS, where the tasks of that environment get it.

    It is read here, judged here, and for a metered key tried by a free call. Only then is it stored, and made current.
    """
    ids = {name: given.pop(name) for name in federation.PARAMETERS}
    if kind == _FEDERATION:
        if source or expires or without_refresh_token or given != _PLAIN:
            raise UsageError("--kind federation has ids and no credential", hint="give --rule, --organization, …")
        changed, _ = federation.put_ids(Aws(conf), ids, check=check)
        document = {"kind": kind, "place": f"stack:{Names(conf.aws_environment).base}", "changed": changed, **ids}
        done = "are set already" if not changed else "would be set" if check else "are set"
        return VerbResult(document, f"the ids {done}")
    if any(ids.values()):
        raise UsageError("--rule, --organization, --service-account and --workspace are of --kind federation")
    given["place"] = given.pop("where")
    if given["place"] == "image":
        given["worker"] = _worker_image(conf)
    keeper = vault(conf, **given)
    credential = read(kind, source, conf, expires=expires, without_refresh_token=without_refresh_token)
    stored = keeper.put(credential, source=lasting(kind, source), check=check)
    return _told(stored, "is in", "would go to" if check else "is in")


def _worker_image(conf: Settings) -> WorkerImage:
    def checkout() -> Path:
        return find_project(conf.project_dir, Path.cwd())

    base = conf.worker_base_image
    return WorkerImage(made=lambda: ensure(checkout(), note, base), name=lambda: name_of(checkout(), base))


@command.add_command
@cloud_verb("status", quiet=True, epilog="Exit status: 0, also for one that has ended; see check.")
@_WARN
def status(conf: Settings, *, as_json: bool, warn_days: float) -> VerbResult:
    """Show each credential on AWS: place, fingerprint, end. No credential is read for it."""
    rows = vault(conf).status(warn_days)
    return VerbResult({"credentials": rows}, _table(rows))


@command.add_command
@cloud_verb("check", quiet=True, epilog="Exit status: 0 all is well, 3 something ended, ends soon or was refused.")
@_WARN
@click.option("--upload", is_flag=True, help="Put again what has changed in its source here.")
@click.option("--schedule", "how", type=click.Choice(timer.KINDS), help="Print what runs this daily, and stop.")
def check(conf: Settings, *, as_json: bool, warn_days: float, upload: bool, how: str | None) -> VerbResult:
    """Look when the credentials end; for cron, systemd or launchd."""
    if how:
        words = [str(Path(sys.executable).with_name("farmhand")), "cloud", "credential", "check"]
        words += ["--upload"] if upload else []
        words += ["--warn-days", f"{warn_days:g}"] if warn_days != WARN_DAYS else []
        words += _stated(conf)
        text = Daily(name="credential", about="credentials: when do they end?", command=words).text(how)
        return VerbResult({"schedule": how, "text": text}, text)
    keeper = vault(conf)
    renewed: list[Stored] = []
    failed: dict[str, FarmhandError] = {}
    if upload:
        renewed, failed = keeper.renew()
    rows = keeper.status(warn_days)
    trouble = [f"{row['kind']}: {row['trouble']}" for row in rows if row["trouble"]]
    trouble += [f"{kind}: not put again: {error}" for kind, error in failed.items()]
    document = {"credentials": rows, "renewed": [_document(one) for one in renewed if one.changed], "trouble": trouble}
    lines = [f"{one.kind}: put again, {one.fingerprint}" for one in renewed if one.changed]
    lines += trouble or [f"{counted(len(rows), 'credential')} on AWS, none ends within {warn_days:g} days"]
    return VerbResult(document, printable("\n".join(lines)), 3 if trouble else 0)


def _stated(conf: Settings) -> list[str]:
    """Return the settings as options, for a process that has none of this one's options and variables."""
    named = {f"--{name.replace('_', '-')}": str(getattr(conf, name)) for name in _LOGIN}
    if conf.config_file != config_path(None, {})[0] and os.path.exists(conf.config_file):
        named["--config"] = os.path.abspath(conf.config_file)
    return [word for option, value in named.items() if value for word in (option, value)]


@command.add_command
@cloud_verb("rotate", epilog="Exit status: as farmhand rotate.")
@click.option("--new-key", metavar="SOURCE", help="As for farmhand rotate.")
@rotation_options
def rotate_key(conf: Settings, *, as_json: bool, **given: Any) -> VerbResult:
    """Replace the metered key on AWS by another one, by version stages, as farmhand rotate does for any key source."""
    _ = Aws(conf).account  # refuses another one
    source = f"secretsmanager:{Names(conf.aws_environment).secret('key')}"
    try:
        conf, own = conf._replace(key_source=source), conf.key_source
        return rotate(conf, as_json=as_json, called=_ROTATE, own_source=own, **given)
    except FarmhandError as error:
        error.hint = error.hint.replace("farmhand rotate", _ROTATE)
        raise


@command.add_command
@cloud_verb("remove")
@_kind()
@click.option("--previous", is_flag=True, help="Only what the current one has replaced.")
@click.option(
    "--place", "where", type=click.Choice(PLACES), help="Take it out there only. Default: where the table has it."
)
@click.option("--client-side", is_flag=True, help="With --place s3: what was encrypted here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--check", is_flag=True, help="Change nothing.")
def remove(
    conf: Settings,
    *,
    as_json: bool,
    kind: str,
    previous: bool,
    where: str | None,
    client_side: bool,
    yes: bool,
    check: bool,
) -> VerbResult:
    """Take a credential out of AWS. Tasks that need it fail from then on."""
    keeper, here = vault(conf, place=where or PLACES[0], client_side=client_side), where is not None
    gone = "would be gone" if check else "is gone"
    if previous:
        stored = keeper.retire(kind, here=here, check=check)
        return VerbResult(_document(stored), f"the older one {gone}" if stored.changed else "there is no older one")
    if not (yes or check):
        raise UsageError(f"this takes the {kind} out of {conf.aws_environment}", hint="--yes does it")
    stored = keeper.remove(kind, here=here, check=check)
    where = f" in {stored.place}" if here else ""
    text = f"the {kind} {gone} from {stored.place}" if stored.changed else f"there is no {kind}{where}: nothing to do"
    return VerbResult(_document(stored), text, notes=stored.notes)


def _document(stored: Stored) -> dict[str, Any]:
    """Return it for JSON, where `version` is that of the object."""
    document = stored.document()
    return {"version_id": document.pop("version"), **document}


def _told(stored: Stored, unchanged: str, changed: str) -> VerbResult:
    ends = f", ends {stored.expires_at}" if stored.expires_at else ""
    what = f"{stored.kind} {stored.fingerprint}"
    text = (
        f"{what} {changed if stored.changed else unchanged} {stored.place}{'' if stored.changed else ' already'}{ends}"
    )
    return VerbResult(_document(stored), printable(text), notes=stored.notes)


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no credential is on AWS: farmhand cloud credential put"
    lines = []
    for row in rows:
        left = "" if row["days_left"] is None else f"{row['days_left']:.1f} days left"
        ends = " ".join(filter(None, (row["expires_at"] or "its end is not known", left)))
        state = row["trouble"] or ("ok, the older one is there too" if row["previous"] else "ok")
        lines.append(f"{row['kind']:11}  {row['fingerprint'] or '?':12}  {ends:40}  {state}")
        lines.append(f"{'':11}  {row['place']}" + (f" (weaker: {row['weaker']})" if row["weaker"] else ""))
    plan = [row["kind"] for row in rows if row["kind"] in OF_A_PLAN]
    return printable("\n".join([*lines, *([f"{plan[0]}: of your plan, see docs/subscription.md"] if plan else [])]))
