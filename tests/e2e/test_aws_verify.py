"""`farmhand cloud verify --live`: over the double with real containers, with the wall and with a broken one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from farmhand.aws.places.live_check import ROWS
from farmhand.core.shard import STOP_S
from farmhand.places.image import ensure
from tests.support.aws_site import ROOT, AwsSite

#: What the double has no part of: a private network, IPv6, Spot's own notice.
NOT_KNOWN = {"the API by IPv6", "no way elsewhere", "names of the endpoints", "Spot's notice"}
#: moto does not judge the role that a call is signed by, so a test plants AWS's answer.
DENIED = {"service": "secretsmanager", "action": "GetSecretValue", "times": 9, "status": 400}
DENIED |= {"code": "AccessDeniedException", "caller": "farmhand-agent"}


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    report = json.loads(done.stdout)
    assert [row["name"] for row in report["rows"]] == [*ROWS], done.stderr
    assert all(row["seen"] and row["about"] for row in report["rows"])
    return {row["name"]: row["verdict"] for row in report["rows"]}


def running(site: AwsSite) -> dict[str, Any]:
    return {name: task for name, task in site.aws.tasks().items() if task["running"]}


def test_every_row_is_looked_at_and_passes_where_the_double_has_it(site: AwsSite) -> None:
    site.aws.faults(DENIED)
    done = site.farmhand("cloud", "verify", "--live", "--yes", "--json")
    found = verdicts(done)
    print(done.stdout)
    assert found == {name: "not known" if name in NOT_KNOWN else "passed" for name in ROWS}
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (0, "passed")
    assert 0 < float(report["most_usd"]) < 0.05
    assert site.api_process.key not in done.stdout + done.stderr
    assert "the pull" in next(row["seen"] for row in report["rows"] if row["name"] == "the start")
    # Nothing of it is left, and no tokens were asked for.
    assert not running(site)
    assert not site.api.posts()


@pytest.fixture
def broken_wall(site: AwsSite) -> Iterator[None]:
    """The image's launcher loads no filter."""
    image, plain = site.image, ensure(ROOT, print)
    where = "/opt/farmhand/lib/farmhand/cloud"
    # What is compiled in the image is not compared with its source.
    edit = f"sed -i 's/^    _load_filter(FAMILIES/    print(FAMILIES/' {where}/confine.py"
    edit += f" && rm {where}/__pycache__/confine.*"
    build = ["docker", "build", "--quiet", "--tag", image, "-"]
    subprocess.run(build, input=f"FROM {plain}\nRUN {edit}\n", text=True, check=True, capture_output=True)
    yield
    subprocess.run(["docker", "tag", plain, image], check=True)


def test_a_broken_wall_and_a_readable_secret_fail(site: AwsSite, broken_wall: None) -> None:
    done = site.farmhand("cloud", "verify", "--live", "--yes", "--json")
    found = verdicts(done)
    failed = {name for name, verdict in found.items() if verdict == "failed"}
    assert (done.returncode, failed) == (1, {"seccomp filter", "credentials path", "who may read the secret"})
    seen = {row["name"]: row["seen"] for row in json.loads(done.stdout)["rows"]}
    assert "a UDP socket" in seen["seccomp filter"]
    assert "the role's credentials" in seen["credentials path"]


def test_ctrl_c_ends_the_task_and_the_job(site: AwsSite) -> None:
    process = site.start("cloud", "verify", "--live", "--yes")
    site.aws.until(lambda: running(site))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "stopping the task and the job" in said) == (130, True), said
    # A container that was only starting does not hear SIGTERM: it is killed after its stopTimeout, as on Fargate.
    site.aws.until(lambda: not running(site), 2 * STOP_S)


def test_without_live_it_says_what_it_would_do(site: AwsSite) -> None:
    before = (len(site.objects("")), len(site.aws.tasks()))
    done = site.farmhand("cloud", "verify")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ROWS)
    assert "less than US$ 0.0" in done.stdout
    asked = site.farmhand("cloud", "verify", "--live")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert (len(site.objects("")), len(site.aws.tasks())) == before
