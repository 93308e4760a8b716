"""The loopback Messages API: a strict stand-in for the provider's, for tests and for `make demo`.

It listens on loopback or a Unix socket, refuses what the real API refuses with the real error bodies, answers
deterministically, can be told to fail (`faults`), to answer in a script (`rules`), and keeps a log of what it received.
"""

from tests.support.messages_api.faults import Fault
from tests.support.messages_api.rules import Rule, Step
from tests.support.messages_api.server import MessagesApi
from tests.support.messages_api.state import DEFAULT_KEY

__all__ = ["DEFAULT_KEY", "Fault", "MessagesApi", "Rule", "Step"]
