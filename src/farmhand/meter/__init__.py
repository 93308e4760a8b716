"""The only path to the Messages API: checks the task token, adds the key, counts usage, limits and retries requests."""
