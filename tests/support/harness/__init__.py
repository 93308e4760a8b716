"""Real coding harnesses, pinned, each run against a gateway by the recipe that `farmhand gateway connect` prints."""
