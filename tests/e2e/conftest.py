"""The e2e harness: one farm host, built by site.yml over real sshd, in a checkout of its own, for each worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws_site import AwsSite
from tests.support.farm import ApiControl, Farm
from tests.support.farm.checkout import copy_checkout
from tests.support.farm.image import REFRESH, host_image

REPOSITORY = Path(__file__).parents[2]
#: Of two workers none should begin one of these when the other has nothing left to do.
LONGEST = ["test_runbooks.py", "test_runbooks_two.py", "test_sandbox.py", "test_site_variables.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, each whole."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def built_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """The farm, started from the image of a built host and made this operator's by site.yml; removed at the end.

    FARMHAND_E2E_CHECKOUT names a checkout whose demo is up, to use that farm and leave it: for writing tests.
    """
    if existing := os.environ.get("FARMHAND_E2E_CHECKOUT"):
        yield Farm(Path(existing))
        return
    farm = Farm(copy_checkout(REPOSITORY, tmp_path_factory.mktemp("e2e") / "checkout"), image=host_image())
    farm.container.remove()  # one that is left of a run that was killed has other sources
    try:
        farm.boot()
        farm.build(*REFRESH)
        yield farm
    finally:
        farm.down()


@pytest.fixture
def farm(built_farm: Farm) -> Iterator[Farm]:
    """The farm for one test: the API has no faults, rules, latency or log; a failure shows both logs."""
    built_farm.api.clear()
    built_farm.api.keys(built_farm.key)
    yield built_farm
    print(built_farm.exec("journalctl", "-u", "jada-agent", "-n", "40", "--no-pager", "-o", "cat").stdout)
    print("the API received:", *built_farm.api.log()[-20:], sep="\n")


@pytest.fixture
def api(farm: Farm) -> ApiControl:
    """The control client of the loopback API behind the farm."""
    return farm.api


@pytest.fixture(scope="session")
def workers_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    """An environment in the double of AWS, with real containers, for all tests of a worker."""
    with AwsSite(tmp_path_factory.mktemp("aws")) as site:
        yield site


@pytest.fixture(scope="module")
def made_site(workers_site: AwsSite) -> AwsSite:
    """That environment for one file: nothing runs in it that another file has left."""
    workers_site.end_all()
    return workers_site


@pytest.fixture
def site(made_site: AwsSite) -> AwsSite:
    """That environment for one test: neither the API nor AWS has a fault, rule or latency."""
    made_site.api.clear()
    made_site.api.keys(made_site.api_process.key)
    made_site.aws.faults()
    return made_site
