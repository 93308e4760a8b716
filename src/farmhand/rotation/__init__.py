"""Rotation of the metered key without downtime: a state machine whose every step is safe to repeat.

`farmhand rotate` and the Ansible module `farmhand_key` are two front ends of `machine.Machine`. Standard library only.
"""
