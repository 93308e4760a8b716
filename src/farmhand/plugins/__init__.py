"""The implementations of library/ and action_plugins/.

`scrub` and `search` run on a host as `ansible.module_utils.farmhand.plugins`: standard library only, relative imports.
"""
