"""Documentation of farmhand_box. The work is done by the action plugin of the same name, on the workstation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: farmhand_box
short_description: Make a farm host on AWS Lightsail or EC2, or take it away
description:
  - One instance with a static address and a firewall that lets nothing in but ssh from the given networks. What can be
    checked is checked before the first change. A run that was cut off is completed by the next one.
  - The host keys come from the provider's API (Lightsail's access details, EC2's console output), never from the
    network. They and the inventory's file are written when all of it is known.
  - Only the public ssh key is read.
  - Runs on the workstation (C(connection - local)), with the operator's login to AWS.
options:
  name:
    description: The host's name in the inventory. AWS's names begin with C(farmhand-ENVIRONMENT-).
    type: str
    required: true
  state:
    type: str
    choices: [present, absent]
    default: present
    description: V(absent) takes away instance, disk, address, firewall, key pair and what the workstation knows of it.
  provider:
    description: Default - where the box is, V(lightsail) for a new one.
    type: str
    choices: [lightsail, ec2]
  region: {description: Default - where the box is, else the setting C(aws_region)., type: str}
  zone: {description: The availability zone. Default - one that has the size., type: str}
  size:
    description: A bundle of Lightsail (default V(medium_3_0)) or an instance type of EC2 (default V(t3.medium)). It
      cannot be changed in place.
    type: str
  image:
    description: A blueprint of Lightsail (default V(debian_12)); for EC2 V(debian-12) (default), V(debian-13),
      V(ubuntu-24.04) or an C(ami-…).
    type: str
  user: {description: The image's user. Needed for an C(ami-…)., type: str}
  disk_gb: {description: For EC2., type: int}
  ssh_from:
    description: The IPv4 networks that may use ssh, such as V(203.0.113.7/32). There is no default for a new box.
    type: list
    elements: str
  public_key: {description: The operator's public key. Default - the usual one below C(~/.ssh)., type: str}
  usd_month: {description: The price of a month where the table has none., type: str}
  cloudwatch:
    description: Whether it is to push metrics without a key. On EC2 it gets the instance profile
      C(farmhand-ENVIRONMENT-host), which may do that alone; on Lightsail what is left to do is said.
    type: bool
    default: false
  inventory_dir: {description: Where C(NAME.yml) is written., type: path, required: true}
  known_hosts_file: {description: Default - C(~/.ssh/known_hosts)., type: str}
  wait_s: {description: How long AWS may take., type: float, default: 900}
  poll_s: {description: How long to wait between two looks., type: float, default: 5}
  aws_environment: {description: The set of names. Default - the setting., type: str}
  aws_profile: {description: The login to AWS. Default - the setting., type: str}
attributes:
  check_mode:
    support: full
    description: Looks at AWS and the files, checks and compares; nothing is written.
  diff_mode:
    support: full
    description: Shows instance, address and firewall, and the files, before and after.
  idempotent:
    support: full
    description: A box that is as wanted is not changed.
author: Farmhand
"""

EXAMPLES = r"""
- name: Make a box
  farmhand_box:
    name: farm1
    ssh_from: [203.0.113.7/32]
    inventory_dir: "{{ playbook_dir }}/../inventory"
"""

RETURN = r"""
steps: {description: "What was or would be done, line by line.", type: list, elements: str, returned: always}
price: {description: "What it costs a month, and where that is from.", type: str, returned: state=present}
usd_month: {description: "The same in US$, as digits.", type: str, returned: state=present}
left_to_do: {description: "What its metrics need besides, or nothing.", type: str, returned: state=present}
exists: {description: "Whether there was an instance before.", type: bool, returned: always}
ready: {description: "Whether it can be reached as the inventory says.", type: bool, returned: always}
address: {description: "The static address.", type: str, returned: when it is known}
user: {description: "The login.", type: str, returned: when ready}
identity: {description: "The private key's path, if it is there. It was not read.", type: str, returned: when ready}
host_keys: {description: "Kinds and fingerprints.", type: list, elements: str, returned: when ready}
inventory_file: {description: "What was written.", type: str, returned: when ready}
"""
