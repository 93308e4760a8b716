"""What Fargate refuses is found in a template, each fault alone, and nothing in one without faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cfnlint.api import lint_all

from tests.support.fargate_rules.__main__ import main
from tests.support.fargate_rules.sizes import cpu_units, mebibytes, pair_fault
from tests.support.fargate_rules.template import template_faults

TEMPLATE = Path(__file__).parents[2] / "data" / "aws" / "fargate.yaml"
TASK_LINUX = "LinuxParameters: {InitProcessEnabled: true, Capabilities: {Drop: [ALL]}}"
JOB_LINUX = "                LinuxParameters: {InitProcessEnabled: true}\n"
ESSENTIAL = "          Essential: true\n"
JOB_IMAGE = "              - Name: worker-of-a-job\n                Image: !Ref ImageUri\n"

#: What the template says → what it says instead, and what is refused for it.
PLANTED = {
    "privileged": (
        ESSENTIAL,
        ESSENTIAL + "          Privileged: true\n",
        "Task: container agent: Fargate does not support privileged",
    ),
    "tmpfs": (
        TASK_LINUX,
        "LinuxParameters: {Tmpfs: [{ContainerPath: /x, Size: 1}]}",
        "Task: container agent: Fargate does not support linuxParameters.tmpfs",
    ),
    "0.3 vCPU": ('"0.25"}, {Type: MEMORY', '"0.3"}, {Type: MEMORY', "Job: no Fargate size has 1.05 vCPU"),
    "devices": (
        TASK_LINUX,
        "LinuxParameters: {Devices: [{HostPath: /dev/fuse}]}",
        "Task: container agent: Fargate does not support linuxParameters.devices",
    ),
    "shared memory": (
        TASK_LINUX,
        "LinuxParameters: {SharedMemorySize: 64}",
        "Task: container agent: Fargate does not support linuxParameters.sharedMemorySize",
    ),
    "a capability": (
        "{Drop: [ALL]}",
        "{Add: [NET_ADMIN]}",
        "Task: container agent: Fargate does not add the capability NET_ADMIN",
    ),
    "extra hosts": (
        ESSENTIAL,
        ESSENTIAL + "          ExtraHosts: [{Hostname: a, IpAddress: 127.0.0.1}]\n",
        "Task: container agent: Fargate does not support extraHosts",
    ),
    "no network": (
        ESSENTIAL,
        ESSENTIAL + "          DisableNetworking: true\n",
        "Task: container agent: Fargate does not support disableNetworking",
    ),
    "Docker's security options": (
        ESSENTIAL,
        ESSENTIAL + '          DockerSecurityOptions: ["no-new-privileges"]\n',
        "Task: container agent: Fargate does not support dockerSecurityOptions",
    ),
    "a directory of the host": (
        "[{Name: run}]",
        "[{Name: run, Host: {SourcePath: /x}}]",
        "Task: volume run: Fargate does not support host.sourcePath",
    ),
    "bridge": ("NetworkMode: awsvpc", "NetworkMode: bridge", "Task: Fargate requires networkMode awsvpc"),
    "the pids of the host": (
        "NetworkMode: awsvpc",
        "NetworkMode: awsvpc\n      PidMode: host",
        "Task: Fargate does not support pidMode host",
    ),
    "no such pair": ('Memory: "2048"', 'Memory: "8192"', "Task: no Fargate size has 0.5 vCPU with 8192 MiB"),
    "no size": ("      Cpu: !Ref Cpu\n", "", "Task: Fargate requires cpu and memory of the task"),
    "containers larger than the task": (
        "Memory: 1024",
        "Memory: 4096",
        "Task: memory of the containers is 4096 together, of the task 2048",
    ),
    "a small disk": ("SizeInGiB: 21", "SizeInGiB: 20", "Task: ephemeralStorage is not from 21 to 200 GiB"),
    "a long end": ("StopTimeout: 110", "StopTimeout: 180", "Task: container agent: stopTimeout is not from 2 to 120 s"),
    "no execution role": (
        "      ExecutionRoleArn: !GetAtt Role.Arn\n      TaskRoleArn",
        "      TaskRoleArn",
        "Task: secrets need executionRoleArn",
    ),
    "another log driver": (
        "LogDriver: awslogs",
        "LogDriver: syslog",
        "Task: container agent: Fargate has no log driver syslog",
    ),
    "logs without a prefix": (
        "awslogs-stream-prefix: task, ",
        "",
        "Task: container agent: awslogs on Fargate wants awslogs-stream-prefix",
    ),
    "an unknown volume": (
        "SourceVolume: run, ContainerPath: /run/farmhand, ReadOnly",
        "SourceVolume: runs, ContainerPath: /run/farmhand, ReadOnly",
        "Task: container worker: there is no volume runs",
    ),
    "an unknown container": (
        "ContainerName: agent, Condition",
        "ContainerName: agents, Condition",
        "Task: container worker: depends on agents, which is no other container of the task",
    ),
    "the end of an essential container": (
        "ContainerName: agent, Condition: START",
        "ContainerName: agent, Condition: SUCCESS",
        "Task: container worker: waits for the end of agent, which is essential",
    ),
    "health that nobody checks": (
        "ContainerName: agent, Condition: START",
        "ContainerName: agent, Condition: HEALTHY",
        "Task: container worker: depends on the health of agent, which has no healthCheck",
    ),
    "nothing essential": (ESSENTIAL, "          Essential: false\n", "Task: no container is essential"),
    "a secret that is no secret": (
        "Environment: [{Name: MODE,",
        "Environment: [{Name: FARMHAND_KEY,",
        "Task: container agent: FARMHAND_KEY is a secret and an environment variable",
    ),
    "capabilities of a job": (
        JOB_LINUX,
        "                LinuxParameters: {Capabilities: {Drop: [ALL]}}\n",
        "Job: Batch has no ecsProperties.taskProperties[0].containers[agent-of-a-job].linuxParameters.capabilities",
    ),
    "entry point of a job": (
        JOB_IMAGE,
        JOB_IMAGE + "                EntryPoint: [/x]\n",
        "Job: Batch has no ecsProperties.taskProperties[0].containers[worker-of-a-job].entryPoint",
    ),
    "health check of a job": (
        JOB_IMAGE,
        JOB_IMAGE + "                HealthCheck: {Command: [CMD, x]}\n",
        "Job: Batch has no ecsProperties.taskProperties[0].containers[worker-of-a-job].healthCheck",
    ),
    "environment files of a job": (
        JOB_IMAGE,
        JOB_IMAGE + "                EnvironmentFiles: [{Type: s3, Value: x}]\n",
        "Job: Batch has no ecsProperties.taskProperties[0].containers[worker-of-a-job].environmentFiles",
    ),
    "privileges of a job": (
        JOB_IMAGE,
        JOB_IMAGE + "                Privileged: true\n",
        "Job: container worker-of-a-job: Fargate does not support privileged",
    ),
    "ulimits of a job": (
        JOB_IMAGE,
        JOB_IMAGE + "                Ulimits: [{Name: nofile, SoftLimit: 1, HardLimit: 1}]\n",
        "Job: container worker-of-a-job: ulimits is not for Fargate",
    ),
    "Batch's own variable": (
        "{Name: BUCKET,",
        "{Name: AWS_BATCH_X,",
        "Job: container agent-of-a-job: environment names must not begin with AWS_BATCH: AWS_BATCH_X",
    ),
    "a container without a size": (
        '[{Type: VCPU, Value: "0.75"}, {Type: MEMORY, Value: "1024"}]',
        '[{Type: VCPU, Value: "0.75"}]',
        "Job: container agent-of-a-job: resourceRequirements lack VCPU or MEMORY",
    ),
    "a GPU": (
        '{Type: VCPU, Value: "0.75"}, ',
        '{Type: VCPU, Value: "0.75"}, {Type: GPU, Value: "1"}, ',
        "Job: container agent-of-a-job: Fargate has no GPU",
    ),
    "a job of EC2": (
        "PlatformCapabilities: [FARGATE]",
        "PlatformCapabilities: [EC2]",
        "Job: platformCapabilities lacks FARGATE",
    ),
    "a short timeout": ("AttemptDurationSeconds: 7200", "AttemptDurationSeconds: 30", "Job: timeout is less than 60 s"),
    "many attempts": ("Attempts: 5", "Attempts: 11", "Job: retryStrategy.attempts is not from 1 to 10"),
    "a star in the middle": (
        '"Your Spot Task was interrupted*"',
        '"*Spot*"',
        "Job: onStatusReason '*Spot*' is no pattern of Batch: a star may only be its end",
    ),
    "six rules": (
        "{Action: EXIT, OnReason",
        ", ".join(f'{{Action: RETRY, OnExitCode: "{n}"}}' for n in range(3)) + ", {Action: EXIT, OnReason",
        "Job: evaluateOnExit has more than 5 rules",
    ),
    "a job without an execution role": (
        "          - ExecutionRoleArn: !GetAtt Role.Arn\n            TaskRoleArn",
        "          - TaskRoleArn",
        "Job: Fargate requires executionRoleArn",
    ),
    "compute of EC2": (
        "{Type: FARGATE_SPOT, MaxvCpus: 64,",
        "{Type: FARGATE_SPOT, MinvCpus: 0, MaxvCpus: 64,",
        "Compute: minvCpus is not for Fargate",
    ),
    "one branch of a condition": (
        '      Memory: "2048"',
        '      Memory: !If [Public, "2048", "512"]',
        "Task: no Fargate size has 0.5 vCPU with 512 MiB",
    ),
}


def _planted(name: str, directory: Path) -> tuple[Path, str]:
    before, after, refused = PLANTED[name]
    text = TEMPLATE.read_text("utf-8")
    assert text.count(before) == 1, f"{before!r} is {text.count(before)} times in the template"
    path = directory / "template.yaml"
    path.write_text(text.replace(before, after), "utf-8")
    return path, refused


def test_a_template_without_faults_passes() -> None:
    assert template_faults(TEMPLATE) == []
    assert [match for match in lint_all(TEMPLATE.read_text("utf-8")) if match.rule.id.startswith("E")] == []


@pytest.mark.parametrize("name", PLANTED)
def test_each_fault_is_refused(name: str, tmp_path: Path) -> None:
    path, refused = _planted(name, tmp_path)
    assert refused in template_faults(path)


def test_cfn_lint_lets_these_pass() -> None:
    text = TEMPLATE.read_text("utf-8")
    for name in ("privileged", "tmpfs", "0.3 vCPU"):
        text = text.replace(*PLANTED[name][:2])
    assert [str(match) for match in lint_all(text) if match.rule.id.startswith("E")] == []


def test_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, refused = _planted("tmpfs", tmp_path)
    run = [sys.executable, "-m", "tests.support.fargate_rules", str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{path}: {refused}\n", "")
    assert main([str(TEMPLATE)]) == 0
    assert capsys.readouterr() == ("nothing that Fargate refuses\n", "")


@pytest.mark.parametrize("text", ["- a\n- [", "{}", "just words"])
def test_what_is_no_template_is_said(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    assert main([str(tmp_path / "x.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "x.yaml" in err
    assert "Traceback" not in err


def test_sizes() -> None:
    assert [cpu_units(text) for text in ("256", ".5 vCPU", "0.25vcpu", "4 vCPU", "x")] == [256, 512, 256, 4096, None]
    assert [mebibytes(text) for text in ("512", "1 GB", "0.5GB", "..")] == [512, 1024, 512, None]
    assert pair_fault(16384, 122880) is None
    assert pair_fault(8192, 17408) == "no Fargate size has 8 vCPU with 17408 MiB"
