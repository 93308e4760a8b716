"""The three dialects that harnesses speak, and their translation to and from Chat Completions of a local server."""
