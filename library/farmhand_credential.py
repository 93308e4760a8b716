"""Documentation of farmhand_credential. The work is done by the action plugin of the same name, on the workstation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_credential
short_description: Bring a credential to AWS, retire what it replaces, take it out, or look at it
description:
  - The metered key, a token of C(claude setup-token), the access token of the CLI's login, or a token for git. It is
    read on the workstation, judged before any network is used, and a metered key is tried by a free call before it is
    stored and made current.
  - A refresh token never leaves the workstation. An expired credential, one of another kind, and a login with less than
    30 minutes left are refused.
  - Runs on the workstation (C(connection - local)). No credential is an argument or part of the result, and none is in
    a diff - fingerprints tell them apart. So C(no_log) is not needed.
  - To replace a metered key while work goes on use M(farmhand_key) with C(key_source - secretsmanager:NAME).
options:
  state:
    description: V(present) brings it there. V(rotated) does, and retires what it replaces. V(retired) only retires.
      V(absent) takes it out. V(status) looks only.
    type: str
    choices: [status, present, rotated, retired, absent]
    default: present
  kind:
    description: Which credential. V(setup-token) and V(login) are of the operator's own plan, and need the setting
      C(allow_subscription_cloud); read docs/subscription.md first.
    type: str
    choices: [key, setup-token, login, git]
    default: key
  source:
    description: Where it is - C(file:PATH#NAME), C(env:NAME), C(keyring:SERVICE/USER) or C(command:ARGV), for a login
      the path of its file. Default - the key's own source; the CLI's login file.
    type: str
    default: ""
  place:
    description: V(secretsmanager), which a task's own role cannot read, or V(s3), which it can. Default -
      V(secretsmanager); for V(absent) and V(retired), which otherwise look there only, where the table has it.
    type: str
    choices: [secretsmanager, s3]
  expires:
    description: The day of its end, C(2027-03-01). Default - for a setup-token a year from now.
    type: str
    default: ""
  without_refresh_token:
    description: Go on where the source has a refresh token as well, and leave that there.
    type: bool
    default: false
  client_side:
    description: With C(place=s3), encrypt it on the workstation too.
    type: bool
    default: false
  kms_key:
    description: The ARN of a key of your own, in the place of the stack's.
    type: str
    default: ""
  warn_days:
    description: For C(state=status) - how many days before its end a credential counts as trouble.
    type: float
    default: 14
  aws_environment: {description: The set of stacks. Default - the setting., type: str}
  aws_region: {description: The region. Default - the setting., type: str}
  aws_profile: {description: The login to AWS. Default - the setting., type: str}
  upstream_url: {description: The Messages API that proves a key. Default - the setting., type: str}
attributes:
  check_mode:
    support: full
    description: Reads and judges the credential, proves it by the same free call, and compares; nothing is written.
  diff_mode:
    support: full
    description: Shows fingerprint, place and end, before and after.
  idempotent:
    support: full
    description: The same credential with the same end is not changed, and has the same version. V(absent) without
      O(place) takes out one credential, where the table has it; another run may find one in another place.
author: Farmhand
"""

EXAMPLES = r"""
- name: Bring the metered key to AWS
  farmhand_credential:
    source: "file:~/repos.env#ANTHROPIC_API_KEY"
    expires: "2027-03-01"

- name: See when the credentials end
  farmhand_credential:
    state: status
  register: credentials

- name: Take the token for git out
  farmhand_credential:
    kind: git
    state: absent
"""

RETURN = r"""
kind: {description: "The kind.", type: str, returned: but for state=status}
place: {description: "Where it is.", type: str, returned: but for state=status}
version: {description: "Its version there.", type: str, returned: but for state=status}
fingerprint: {description: "12 hex digits that tell credentials apart.", type: str, returned: but for state=status}
expires_at: {description: "Its end in UTC, empty if not known.", type: str, returned: but for state=status}
notes: {description: "What is worth knowing, line by line.", type: list, elements: str, returned: always}
credentials: {description: "A row for each kind, with C(trouble).", type: list, elements: dict, returned: state=status}
"""
