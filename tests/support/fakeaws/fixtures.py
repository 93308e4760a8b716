"""The fixtures of the double. A directory's conftest.py imports those that its tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fakeaws.client import FakeAws
from tests.support.registry import Registry

#: Characters of the log.
_SHOWN = 4000


@pytest.fixture(scope="session")
def aws_process() -> Iterator[FakeAws]:
    """The services without containers, one process for all tests of a worker."""
    with FakeAws() as running:
        yield running


@pytest.fixture
def aws(aws_process: FakeAws) -> Iterator[FakeAws]:
    """The services, empty. A failure shows what they wrote on stderr."""
    aws_process.reset()
    before = len(aws_process.log())
    yield aws_process
    print(aws_process.log()[before:][-_SHOWN:])


@pytest.fixture
def aws_login(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    """The services, empty; boto3 of this process and what it starts reach them."""
    for name, value in aws.environ().items():
        monkeypatch.setenv(name, value)
    return aws


@pytest.fixture(scope="session")
def registry_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that stands for ECR, one for all tests of a worker."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def registry(registry_process: Registry) -> Registry:
    """That registry, empty."""
    registry_process.clear()
    return registry_process


@pytest.fixture(scope="session")
def aws_docker_process(registry_process: Registry) -> Iterator[FakeAws]:
    """The services with containers and that registry, one process for all tests of a worker."""
    with FakeAws(docker=True, registry=registry_process.address) as running:
        yield running


@pytest.fixture
def aws_docker(aws_docker_process: FakeAws) -> Iterator[FakeAws]:
    """The services with containers, empty; what a test left running is ended after it."""
    aws_docker_process.reset()
    before = len(aws_docker_process.log())
    yield aws_docker_process
    print(aws_docker_process.log()[before:][-_SHOWN:])
    aws_docker_process.reset()
