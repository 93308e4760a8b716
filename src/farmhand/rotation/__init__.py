"""Rotation of the metered key without downtime: a state machine in which every step can be repeated safely.

`farmhand rotate` and the Ansible module `farmhand_key` are two front ends of `machine.Machine`.
"""
