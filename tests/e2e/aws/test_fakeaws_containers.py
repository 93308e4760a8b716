"""The double's tasks in real containers: what Fargate gives a task, what it keeps from it, and how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.scene import Scene

#: Prints what a container finds of the task's secret, role, network and volumes, as one line of JSON.
LOOK = """
import json, os, socket, urllib.request
def get(path):
    try:
        return json.load(urllib.request.urlopen("http://169.254.170.2" + path, timeout=5))
    except OSError as error:
        return str(error)
def reaches(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
role = get(os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])
print(json.dumps({
    "key": os.environ.get("KEY"), "uid": os.getuid(), "role": role["RoleArn"], "token": bool(role["Token"]),
    "guessed": get("/v2/credentials/" + "x" * 32), "task": get("/v4/task")["TaskARN"],
    "aws": reaches("127.0.0.1", int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])),
    "reached": reaches("127.0.0.1", int(os.environ.get("REACH", "9"))),
    "world": reaches("1.1.1.1", 53), "pids": sorted(p for p in os.listdir("/proc") if p.isdigit()).__len__(),
    "shared": os.path.exists("/shared/left-by-agent"),
    "caps": open("/proc/self/status").read().split("CapEff:")[1].split()[0],
    "mode": oct(os.stat("/shared").st_mode & 0o777) if os.path.exists("/shared") else None,
}))
"""


def left_over(aws: FakeAws) -> str:
    """Containers and volumes of the double."""
    label = f"label=farmhand.fakeaws=fakeaws-{aws.url.rpartition(':')[2]}"
    return "".join(
        subprocess.run(["docker", *words, "-q", "--filter", label], capture_output=True, text=True, check=True).stdout
        for words in (["ps", "-a"], ["volume", "ls"])
    )


def looking(scene: Scene, image: str, reach: int) -> list[dict[str, Any]]:
    """Two containers that look around: the agent leaves a file and waits for the worker's end."""
    agent, worker = scene.containers(image)
    mount = {"sourceVolume": "shared", "containerPath": "/shared"}
    agent |= {
        "command": ["sh", "-c", 'touch /shared/left-by-agent; python3 -c "$LOOK"; sleep 2; exit 7'],
        "environment": [{"name": "LOOK", "value": LOOK}, {"name": "REACH", "value": str(reach)}],
        "mountPoints": [mount],
        "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    }
    worker |= {
        "command": ["sh", "-c", 'touch /x; echo "to stderr $?" >&2; sleep 0.5; python3 -c "$LOOK"; exit 3'],
        "environment": agent["environment"],
        "mountPoints": [mount | {"readOnly": True}],
        "readonlyRootFilesystem": True,
    }
    return [agent, worker]


@pytest.fixture
def reached() -> Any:
    """The port of something that listens on this machine."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_task_of_two_containers(aws_docker: FakeAws, scene: Scene, small_image: str, reached: int) -> None:
    aws_docker.options(reach=[reached])
    containers = looking(scene, small_image, reached)
    arn = scene.run_task(scene.task_definition(containers, volumes=[{"name": "shared"}]))
    task = scene.stopped(arn)
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert {c["name"]: c["exitCode"] for c in task["containers"]} == {"agent": 7, "worker": 3}
    task_id = arn.rpartition("/")[2]
    said = {name: scene.lines(f"scene/{name}/{task_id}") for name in ("agent", "worker")}
    agent, worker = json.loads(said["agent"][-1]), json.loads(said["worker"][-1])
    assert (agent["key"], worker["key"]) == ("sk-ant-test-scene", None), "the secret is in the container that names it"
    assert "Read-only file system" in said["worker"][0]
    assert "to stderr 1" in said["worker"]
    assert agent["caps"] == "0" * 16
    assert worker["shared"]
    assert agent["mode"] == "0o755", "the image declares no VOLUME there"
    for seen in (agent, worker):
        assert (seen["role"], seen["token"], seen["task"]) == (scene.role, True, arn)
        assert "404" in seen["guessed"]
        assert (seen["aws"], seen["reached"], seen["world"]) == (True, True, False)
        assert seen["pids"] < 8, "the other container's processes are not seen"
    assert left_over(aws_docker) == ""


def test_the_image_has_exactly_its_name(scene: Scene, small_image: str) -> None:
    job_id = scene.submit(scene.job_definition(scene.containers(f"{small_image}-not")))
    job = scene.ended(job_id)
    assert job["statusReason"].startswith("CannotPullContainerError: ")
    assert "exitCode" not in job["attempts"][0]["container"]


#: Works until SIGTERM, then leaves what it has and asks for another attempt; the second attempt ends.
INTERRUPTED = """
if [ "$AWS_BATCH_JOB_ATTEMPT" = 2 ]; then echo all done; exit 0; fi
trap 'echo flushed; exit 75' TERM
echo working; sleep 60 & wait
"""


def test_spot_takes_a_job_back_and_the_next_attempt_ends_it(
    aws_docker: FakeAws, scene: Scene, small_image: str
) -> None:
    aws_docker.options(spot_s=60.0)  # on a busy machine, too, the traps have the time that AWS gives
    agent, worker = scene.containers(small_image, INTERRUPTED)
    worker["command"] = ["sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait"]
    retry = {
        "attempts": 3,
        "evaluateOnExit": [{"action": "RETRY", "onExitCode": "75"}, {"action": "EXIT", "onReason": "*"}],
    }
    job_id = scene.submit(scene.job_definition([agent, worker], retryStrategy=retry))
    stream = f"scene/agent/{job_id}-1"
    aws_docker.until(lambda: scene.job(job_id)["status"] == "RUNNING" and scene.lines(stream) == ["working"])
    assert aws_docker.interrupt(job_id)
    job = scene.ended(job_id)
    assert job["status"] == "SUCCEEDED", job["attempts"]
    assert [(a["container"].get("exitCode"), a["statusReason"]) for a in job["attempts"]] == [
        (75, "Your Spot Task was interrupted."),
        (0, "Essential container in task exited"),
    ]
    assert scene.lines(stream) == ["working", "flushed"]
    assert scene.lines(f"scene/agent/{job_id}-2") == ["all done"]


def test_who_does_not_end_on_sigterm_is_killed(aws_docker: FakeAws, scene: Scene, small_image: str) -> None:
    aws_docker.options(spot_s=1)
    arn = scene.run_task(
        scene.task_definition(scene.containers(small_image, "trap '' TERM; echo up; sleep 60 & wait; wait"))
    )
    aws_docker.until(
        lambda: scene.task(arn)["lastStatus"] == "RUNNING" and len(aws_docker.tasks()[arn]["running"]) == 2
    )
    aws_docker.until(lambda: scene.lines(f"scene/worker/{arn.rpartition('/')[2]}"))
    aws_docker.interrupt(arn)
    task = scene.stopped(arn)
    assert task["stopCode"] == "SpotInterruption"
    assert {c["exitCode"] for c in task["containers"]} == {137}
    assert left_over(aws_docker) == ""


def test_an_array_of_four(scene: Scene, small_image: str) -> None:
    (agent, _) = scene.containers(small_image)
    agent["command"] = [
        "sh",
        "-c",
        "echo I am $AWS_BATCH_JOB_ARRAY_INDEX of $AWS_BATCH_JOB_ID; exit $AWS_BATCH_JOB_ARRAY_INDEX",
    ]
    size = [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "512"}]
    job_id = scene.submit(scene.job_definition([agent | {"resourceRequirements": size}]), arrayProperties={"size": 4})
    assert scene.ended(job_id)["status"] == "FAILED"
    children = scene.batch.describe_jobs(jobs=[f"{job_id}:{n}" for n in range(4)])["jobs"]
    assert [c["attempts"][0]["container"]["exitCode"] for c in children] == [0, 1, 2, 3]
    assert [c["status"] for c in children] == ["SUCCEEDED", "FAILED", "FAILED", "FAILED"]
    assert scene.lines(f"scene/agent/{job_id}-2-1") == [f"I am 2 of {job_id}:2"]


def test_what_takes_too_much_memory_is_killed(scene: Scene, small_image: str) -> None:
    agent, worker = scene.containers(small_image)
    agent |= {"command": ["python3", "-c", "x = bytearray(10**9); x[::4096] = b'x' * len(x[::4096])"], "memory": 64}
    task = scene.stopped(scene.run_task(scene.task_definition([agent, worker])))
    [ended] = [c for c in task["containers"] if c["name"] == "agent"]
    assert (ended["exitCode"], ended["reason"].partition(":")[0]) == (137, "OutOfMemoryError")


@pytest.fixture
def image_with_volume(small_image: str) -> Iterator[str]:
    """The same with a directory that is a volume without a name in each container, as our own image has."""
    text, name = f"FROM {small_image}\nVOLUME /kept\n", f"{small_image}-volume"
    subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=text, text=True, check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


def volumes() -> set[str]:
    """The names of all volumes."""
    done = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_stopped_double_leaves_no_container_and_no_volume(image_with_volume: str) -> None:
    with FakeAws(docker=True) as other:
        scene = Scene(other)
        arns = [
            scene.run_task(scene.task_definition(scene.containers(image_with_volume, "sleep 60"))) for _ in range(2)
        ]
        other.until(lambda: all(scene.task(arn)["lastStatus"] == "RUNNING" for arn in arns))
        label = f"label=farmhand.fakeaws=fakeaws-{other.url.rpartition(':')[2]}"
        ids = subprocess.run(
            ["docker", "ps", "-q", "--filter", label], capture_output=True, text=True, check=True
        ).stdout.split()
        form = "{{range .Mounts}}{{.Name}} {{end}}"
        words = ["docker", "inspect", "--format", form, *ids]
        mounted = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
        assert mounted & volumes()
        scene.ecs.stop_task(cluster=scene.cluster, task=arns[0])
        scene.stopped(arns[0])
        assert left_over(other) != ""
    assert left_over(other) == ""
    assert mounted & volumes() == set()
