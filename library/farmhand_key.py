"""Documentation of farmhand_key. The work is done by the action plugin of the same name, on the workstation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_key
short_description: Put another metered API key in the place of the one in use, without downtime
description:
  - A rotation goes through the states V(staged), V(switched), V(verified), V(drained) and V(retired). Each is safe
    to repeat, and where a rotation stands survives a crash.
  - V(staged) - the new key is proven by a free call and kept beside the old one in its source. V(switched) - it takes
    the old key's place there and at every farm host. V(verified) - each host has run a canary task on it. V(drained)
    - nothing runs on the old key any more. V(retired) - the old key is disabled and proven dead.
  - What fails before V(retired) brings the old key back, and the module fails and says why.
  - Runs on the workstation (C(connection - local)). The action plugin of the same name fills in the operator's settings
    and the hosts of C(hosts.json). Keys are read here, in their sources; none is an argument or part of the result.
options:
  state:
    description: The state to reach. V(status) looks only, V(aborted) goes back to the old key.
    type: str
    choices: [status, staged, switched, verified, drained, retired, aborted]
    default: retired
  new_key_source:
    description: Where the new key is - C(file:PATH[#NAME]), C(command:ARGV), C(keyring:SERVICE/USER), or V(prompt) to
      be asked for it on the terminal. Needed to begin a rotation. The key in use already is no change.
    type: str
  planned:
    description: Check mode only - fingerprint of the new key that an earlier task of the play would have staged, so
      that this one would go on with it.
    type: str
  force:
    description: Retire the old key although a host that cannot be reached may hold it.
    type: bool
    default: false
  key_source:
    description: The source whose key is replaced - C(file:PATH[#NAME]), C(keyring:SERVICE/USER) or
      C(secretsmanager:NAME). Default - the setting.
    type: str
  pot:
    description: The pot whose key is replaced, a table C([pots.NAME]) of C(config.toml). Default - the first, if there
      are any.
    type: str
  hosts:
    description: The farm hosts, each as in C(hosts.json) with its C(name), or with C(socket) for an agent on this
      machine. Default - those of C(hosts.json).
    type: list
    elements: dict
  upstream_url:
    description: The Messages API that proves keys. Default - the setting.
    type: str
  admin_key_source:
    description: Where the Admin key is. Without one the old key is disabled by hand, see RV(todo). Default - the
      setting.
    type: str
  admin_url:
    description: The Admin API. Default - the setting.
    type: str
  connect_timeout_s:
    description: How long reaching a host may take. Default - the setting.
    type: float
  drain_s:
    description: How long attempts on the old key may take to end. After that the module fails, and can be run again.
    type: float
    default: 3900
  retire_s:
    description: How long the API may take until it refuses a key that the Admin API has disabled.
    type: float
    default: 30
  state_dir:
    description: Where the rotation is remembered. Default - below C(~/.local/state/farmhand).
    type: path
attributes:
  check_mode:
    support: full
    description: Reads the sources, proves the new key by the same free call and compares; nothing is written or handed
      over.
  diff_mode:
    support: full
    description: Shows the state and the fingerprint of the key in use, before and after.
  idempotent:
    support: full
    description: A state that is reached, or a new key that is in use already, is not changed.
author: Farmhand
"""

EXAMPLES = r"""
- name: Rotate to the key that the password manager has
  farmhand_key:
    new_key_source: "command:pass show anthropic/farm-next"

- name: See where the rotation stands
  farmhand_key:
    state: status
  register: rotation

- name: Go back to the old key
  farmhand_key:
    state: aborted
"""

RETURN = r"""
step: {description: "Where the rotation stands, V(none) if there never was one.", type: str, returned: always}
current: {description: "Fingerprint of the key in the source.", type: str, returned: always}
old: {description: "Fingerprint of the key that is replaced.", type: str, returned: when there was a rotation}
new: {description: "Fingerprint of the key that takes its place.", type: str, returned: when there was a rotation}
age_days: {description: "Days since the key in the source was first seen.", type: float, returned: always}
hosts: {description: "State and reason by host.", type: dict, returned: when there was a rotation}
why: {description: "Why it was rolled back.", type: str, returned: when there was a rotation}
pending: {description: "Whether a rotation goes on, in check mode whether one would.", type: bool, returned: always}
progress: {description: "What was done, line by line.", type: list, elements: str, returned: always}
todo: {description: "What is left to be done by hand, empty for nothing.", type: str, returned: always}
"""
