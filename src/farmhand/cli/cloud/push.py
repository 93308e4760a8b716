"""`farmhand cloud push`: the image, by its digest, in the account's registry."""

from __future__ import annotations

from pathlib import Path

import click

from farmhand.aws.client import Aws
from farmhand.aws.environment import image
from farmhand.cli.cloud.verb import cloud_verb
from farmhand.cli.say import note
from farmhand.cli.verb import VerbResult
from farmhand.core.settings import Settings
from farmhand.places.checkout import find_project


@cloud_verb("push", "project_dir")
@click.option("--check", is_flag=True, help="Only say whether it would be pushed.")
def command(conf: Settings, *, as_json: bool, check: bool) -> VerbResult:
    """Build the image of this checkout and push it to the account's registry. Nothing is done if it is there.

    Its tag is the digest of its sources. `farmhand cloud up` does this too, and makes tasks use it.
    """
    directory = find_project(conf.project_dir, Path.cwd())
    aws = Aws(conf)
    _ = aws.account  # the login, before anything takes time
    if not check:
        image.check_docker()
    pushed = image.push(aws, directory, note, conf.worker_base_image, check=check)
    document = {"uri": pushed.uri, "tag": pushed.tag, "digest": pushed.digest, "changed": pushed.changed}
    done = "is there already" if not pushed.changed else "would be pushed" if check else "was pushed"
    return VerbResult(document, f"{pushed.uri or pushed.tag} {done}")
