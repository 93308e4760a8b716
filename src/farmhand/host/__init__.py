"""What Farmhand's own Ansible modules do on a farm host: standard library only, imported as `ansible.module_utils.farmhand.host`."""
