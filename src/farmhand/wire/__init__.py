"""The one client of the wire: standard library only, plain dicts.

The package imports it as `farmhand.wire`; Ansible's modules import the same files as
`ansible.module_utils.farmhand.wire`, so every import inside is relative.
"""
