"""A stand-in for AWS on one machine: moto's server, what it lacks for Farmhand, and real containers as Fargate tasks.

`with FakeAws() as aws:` starts a process of its own on a free port of 127.0.0.1; `python -m tests.support.fakeaws` is
that process. Programs reach it with the environment `aws.environ()`, and nothing else changes for them.

Two modes. With `docker=True` ECS tasks and Batch jobs run as Fargate runs them: all containers of a task share one
network namespace, each has its own processes and root file system; volumes are the task's; `secrets` reach only the
container that names them; the role's credentials come from 169.254.170.2 under a path that is a secret; what the
containers print is in CloudWatch Logs. Nothing of a task reaches the world: only this server and the local ports of
`reach`. An image is found by its exact name, as `docker tag` gave it. Without Docker the same tasks and jobs go
through the same states, but a test plays them: `aws.play(id, {"agent": 0})`.

Real: the shapes of all calls and answers as far as moto has them; CloudFormation's stacks, change sets and failures;
conditions of DynamoDB, `If-None-Match` and bucket policies of S3; version stages of secrets; array jobs, retries and
their rules, time limits, Spot interruptions, exit codes, ends for memory, log streams; functions of Lambda (as
processes here) and what EventBridge Scheduler calls, when a test says that it is time; alarms that tell their topic;
faults by service and action. What Fargate refuses is refused, and so is a CloudFormation type that is not modelled.

Not real: security groups, routes and the policies of endpoints; KMS's grants; IAM but the bucket policies of S3;
quotas but `at_once`; what CloudTrail would record; every latency; the image of a function; the order in which Batch
starts jobs.
"""

from tests.support.fakeaws.client import ACCOUNT, FakeAws

__all__ = ["ACCOUNT", "FakeAws"]
