"""What Farmhand's own Ansible modules do on a farm host. Standard library only, plain values.

Ansible's modules import it as `ansible.module_utils.farmhand.host`.
"""
