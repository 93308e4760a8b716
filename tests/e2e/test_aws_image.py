"""A task on Fargate with the key in its agent's image, in real containers: the worker has no such file."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmhand.core.task_access import BAKED_FILE
from tests.support.aws_site import ROOT, AwsSite
from tests.support.pair import bash, docker
from tests.support.repositories import make_repository
from tests.support.sweep import CanarySweep, account, holding

KEY = f"sk-ant-test-canary-of-an-image-{uuid.uuid4().hex}"
ENVIRONMENT = f"b{uuid.uuid4().hex[:8]}"
LOCAL = f"farmhand-worker-baked:{ENVIRONMENT}-key"


@pytest.fixture
def images(site: AwsSite) -> Iterator[None]:
    """What is built and pulled of the image with the credential is removed."""
    yield
    pulled = f"{site.registry.address}/farmhand-{ENVIRONMENT}/farmhand-worker-baked"
    for image in {*docker("images", "--quiet", LOCAL).split(), *docker("images", "--quiet", pulled).split()}:
        docker("image", "rm", "--force", image)


def file_in(image: str) -> str:
    """Mode, owner and size of the credential in an image, "" if it has none."""
    script = f"[ ! -e {BAKED_FILE} ] || stat -c '%a %u %s' {BAKED_FILE}"
    return docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", script).strip()


def test_a_task_runs_with_the_key_of_the_agent_s_image(site: AwsSite, images: None, tmp_path: Path) -> None:
    private = {"NetworkMode": "private", "BakedImage": "true"}
    names = site.add(ENVIRONMENT, **private)
    origin = make_repository(tmp_path / "origin")
    site.api.keys(KEY)
    words = ("cloud", "credential", "put", "--place", "image", "--i-know-this-is-in-every-layer")
    here = {"FARMHAND_AWS_ENVIRONMENT": ENVIRONMENT}
    more = {**here, "FARMHAND_PROJECT_DIR": str(ROOT), "BAKED_KEY": KEY}
    put = site.farmhand(*words, "--source", "env:BAKED_KEY", environ=more)
    assert put.returncode == 0, put.stderr
    found = re.search(r"aws_baked_image_uri=(\S+)", put.stderr)
    assert found is not None, put.stderr
    assert (file_in(LOCAL), file_in(site.image)) == (f"400 900 {len(KEY)}", "")

    task = (
        "code",
        str(origin),
        "change it by the image's key",
        "--place",
        "fargate",
        "--credential-source",
        "image:",
        "--json",
    )
    refused = site.farmhand(*task, environ=here)
    assert (refused.returncode, "names no image with a credential" in refused.stderr) == (5, True), refused.stderr
    cloudformation = site.aws.client("cloudformation")
    values = {"Environment": ENVIRONMENT, "ImageUri": site.image, **private, "BakedImageUri": found[1]}
    cloudformation.update_stack(
        StackName=names.base,
        UsePreviousTemplate=True,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    script = f"cat {BAKED_FILE}; ls -A /opt/farmhand; env; cat /proc/*/environ | tr '\\0' '\\n'; echo two >> f; sleep 3"
    site.api.rule("change it", bash(script), {"text": "{tool_result}"})
    with CanarySweep(site, KEY) as sweep:
        done = site.farmhand(*task, environ=here)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["repo"]["patch"]["files"]) == ("succeeded", 1)
    assert "No such file or directory" in result["text"]
    assert KEY not in done.stdout + done.stderr + put.stdout + put.stderr
    sweep.check(frozenset())
    assert holding(KEY, account(site, names)) == []
    sent = [
        {name.lower(): value for name, value in post["headers"].items()} for post in site.posts("by the image's key")
    ]
    assert {headers.get("x-api-key") for headers in sent} == {KEY}
    shown = site.farmhand("cloud", "status", environ=here)
    assert (shown.returncode, "A CREDENTIAL IS IN AN IMAGE" in shown.stdout) == (3, True), shown.stderr
    running = docker("run", "--detach", "--network", "none", "--entrypoint", "/bin/sleep", LOCAL, "600").strip()
    try:
        kept = site.farmhand("cloud", "credential", "remove", "--yes", environ=here)
        assert (kept.returncode, "is being used by running container" in kept.stderr) == (3, True), kept.stderr
        assert docker("images", "--quiet", LOCAL)
    finally:
        docker("rm", "--force", running)
    gone = site.farmhand("cloud", "credential", "remove", "--yes", environ=here)
    assert gone.returncode == 0, gone.stderr
    assert docker("images", "--all", "--quiet", "--filter", f"label=farmhand.credential={ENVIRONMENT}-key") == ""
    late = site.farmhand(*task, environ=here)
    assert (late.returncode, "is not there, or has no key in it" in late.stderr) == (3, True), late.stderr
