"""One farm host in a container, built by site.yml over real sshd: what `make demo` boots and the e2e tests work on."""

from tests.support.farm.control import ApiControl
from tests.support.farm.farm import Farm
from tests.support.farm.run import FarmError

__all__ = ["ApiControl", "Farm", "FarmError"]
