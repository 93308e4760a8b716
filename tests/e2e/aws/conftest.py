"""The double of AWS with real containers, and a small image in its registry: the base image under an ECR name."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.fakeaws import FakeAws
from tests.support.fakeaws.fixtures import aws_docker, aws_docker_process, registry, registry_process
from tests.support.fakeaws.scene import Scene

__all__ = ["aws_docker", "aws_docker_process", "registry", "registry_process"]

BASE = "farmhand-base:bookworm"


@pytest.fixture(scope="session")
def small_image(aws_docker_process: FakeAws) -> Iterator[str]:
    """The exact ECR name of a Debian with Python, systemd not started."""
    name = aws_docker_process.image("scene", secrets.token_hex(4))
    subprocess.run(["docker", "tag", BASE, name], check=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, capture_output=True)


@pytest.fixture
def scene(aws_docker: FakeAws) -> Scene:
    return Scene(aws_docker)
