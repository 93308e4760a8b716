"""The options of this process, and its own clients of the services that it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

ACCOUNT = "123456789012"
ACCESS_KEY, SECRET_KEY = "testing", "testing"
#: A word in the User-Agent of what the double and tests call themselves.
ITSELF = "fakeaws-itself"


@dataclass
class Options:
    """What the command line said. Times are in seconds."""

    host: str = "127.0.0.1"
    port: int = 0
    region: str = "us-east-1"
    #: Containers run; else tests play them.
    docker: bool = False
    #: Tasks that run at the same time; the others wait as they would for capacity.
    at_once: int = 3
    #: From SIGTERM to SIGKILL when Spot takes a task back. AWS gives 120.
    spot_s: float = 2.0
    #: Local ports that tasks reach, at 127.0.0.1 there as here.
    reach: set[int] = field(default_factory=set)
    #: HOST:PORT of a registry that stands for ECR.
    registry: str = ""
    #: How long after SubmitJob and RunTask a description lacks what was made.
    lag_s: float = 0.0
    #: A job that could not start has statusReason "Task failed to start", and only its container says why: seen on
    #: EC2 (nextflow#5099). On Fargate statusReason has the reason itself (globaldothealth/list#2662).
    vague_start: bool = False
    #: Whether the account lets its roles have identity tokens for others.
    outbound: bool = True

    @property
    def registry_login(self) -> dict[str, str]:
        """The login that moto's ECR gives."""
        return {"username": "AWS", "password": f"{ACCOUNT}-auth-token"}

    @property
    def url(self) -> str:
        """Where this process listens."""
        return f"http://{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """What its containers and volumes begin with."""
        return f"fakeaws-{self.port}"


OPTIONS = Options()


@cache
def api(service: str, region: str = "") -> Any:
    """This process's own client of a service, in its region."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        service,
        endpoint_url=OPTIONS.url,
        region_name=region or OPTIONS.region,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(user_agent_extra=ITSELF, max_pool_connections=50),
    )
