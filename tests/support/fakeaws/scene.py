"""What a task or a job needs on AWS, made by plain calls: for tests that want one without a stack."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from tests.support.fakeaws.client import FakeAws

GROUP, CLUSTER, QUEUE, FAMILY = "/scene", "scene", "scene-queue", "scene"
_OVER = ("SUCCEEDED", "FAILED")


class Scene:
    """One of each, made when it is first asked for."""

    def __init__(self, aws: FakeAws) -> None:
        self.aws = aws
        self.ecs, self.batch, self.logs = aws.client("ecs"), aws.client("batch"), aws.client("logs")

    @cached_property
    def role(self) -> str:
        """The ARN of a role without rights, for execution and for the task."""
        trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        made = self.aws.client("iam").create_role(RoleName="scene", AssumeRolePolicyDocument=text)
        return str(made["Role"]["Arn"])

    @cached_property
    def group(self) -> str:
        """The name of a log group."""
        self.logs.create_log_group(logGroupName=GROUP)
        return GROUP

    @cached_property
    def secret(self) -> str:
        """The ARN of a secret: it holds sk-ant-test-scene."""
        made = self.aws.client("secretsmanager").create_secret(Name="scene/key", SecretString="sk-ant-test-scene")
        return str(made["ARN"])

    @cached_property
    def subnet(self) -> str:
        """The id of a subnet."""
        return str(self.aws.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"])

    @cached_property
    def cluster(self) -> str:
        """The name of a cluster with both capacity providers of Fargate."""
        self.ecs.create_cluster(clusterName=CLUSTER, capacityProviders=["FARGATE", "FARGATE_SPOT"])
        return CLUSTER

    @cached_property
    def queue(self) -> str:
        """The name of a job queue on Fargate Spot."""
        group = self.aws.client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]
        resources = {"type": "FARGATE_SPOT", "maxvCpus": 64, "subnets": [self.subnet], "securityGroupIds": [group]}
        made = self.batch.create_compute_environment(
            computeEnvironmentName="scene", type="MANAGED", computeResources=resources, serviceRole=self.role
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        self.batch.create_job_queue(jobQueueName=QUEUE, priority=1, computeEnvironmentOrder=order)
        return QUEUE

    def logged(self) -> dict[str, Any]:
        """logConfiguration into the log group."""
        options = {"awslogs-group": self.group, "awslogs-region": self.aws.region, "awslogs-stream-prefix": "scene"}
        return {"logDriver": "awslogs", "options": options}

    def containers(self, image: str = "image", command: str = "true") -> list[dict[str, Any]]:
        """An essential `agent` with the secret, and a `worker` that starts after it. Change them as you like."""
        common = {
            "image": image,
            "command": ["sh", "-c", command],
            "logConfiguration": self.logged(),
            "linuxParameters": {"initProcessEnabled": True},
        }
        secrets = [{"name": "KEY", "valueFrom": self.secret}]
        after = [{"containerName": "agent", "condition": "START"}]
        return [
            {**common, "name": "agent", "essential": True, "secrets": secrets},
            {**common, "name": "worker", "essential": False, "dependsOn": after},
        ]

    # One task of ECS.

    def task_definition(self, containers: list[dict[str, Any]] | None = None, **change: Any) -> dict[str, Any]:
        """The arguments of RegisterTaskDefinition."""
        return {
            "family": FAMILY,
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": "512",
            "memory": "1024",
            "executionRoleArn": self.role,
            "taskRoleArn": self.role,
            "containerDefinitions": containers or self.containers(),
            **change,
        }

    def run_task(self, definition: dict[str, Any] | None = None, **change: Any) -> str:
        """Register the definition and run it on Spot. Return the task's ARN."""
        self.ecs.register_task_definition(**(definition or self.task_definition()))
        made = self.ecs.run_task(**(self.run_arguments() | change))
        return str(made["tasks"][0]["taskArn"])

    def run_arguments(self) -> dict[str, Any]:
        """The arguments of RunTask."""
        return {
            "cluster": self.cluster,
            "taskDefinition": FAMILY,
            "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": [self.subnet]}},
        }

    def task(self, arn: str) -> dict[str, Any]:
        """The task as ECS describes it."""
        found: dict[str, Any] = self.ecs.describe_tasks(cluster=self.cluster, tasks=[arn])["tasks"][0]
        return found

    def stopped(self, arn: str) -> dict[str, Any]:
        """The task when it has stopped."""
        self.aws.until(lambda: self.task(arn)["lastStatus"] == "STOPPED")
        return self.task(arn)

    # Jobs of Batch.

    def job_definition(self, containers: list[dict[str, Any]] | None = None, **change: Any) -> dict[str, Any]:
        """The arguments of RegisterJobDefinition: 0.25 vCPU and 512 MiB for each container."""
        size = [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "512"}]
        sized = [{"resourceRequirements": size, **container} for container in containers or self.containers()]
        task = {"executionRoleArn": self.role, "taskRoleArn": self.role, "containers": sized}
        return {
            "jobDefinitionName": FAMILY,
            "type": "container",
            "platformCapabilities": ["FARGATE"],
            "retryStrategy": {"attempts": 1},
            "ecsProperties": {"taskProperties": [task | change.pop("task", {})]},
            **change,
        }

    def submit(self, definition: dict[str, Any] | None = None, **more: Any) -> str:
        """Register the definition and submit a job of it. Return the job's id."""
        self.batch.register_job_definition(**(definition or self.job_definition()))
        made = self.batch.submit_job(jobName="scene-job", jobQueue=self.queue, jobDefinition=FAMILY, **more)
        return str(made["jobId"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as Batch describes it."""
        found: dict[str, Any] = self.batch.describe_jobs(jobs=[job_id])["jobs"][0]
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job when it has ended."""
        self.aws.until(lambda: self.job(job_id)["status"] in _OVER)
        return self.job(job_id)

    def lines(self, stream: str) -> list[str]:
        """What a container printed."""
        events = self.logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]
