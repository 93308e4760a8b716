"""`farmhand mcp`: the farm as tools of an interactive session, by the Model Context Protocol over stdio.

The server reads no key. Whatever is sent goes through a child process, which is the same as `claude-cheap` or
`farmhand batch` and gets the key as they do; it goes on when the server ends. `tools` has the tools and their
arguments, `farm` what they do, `jobs` the children and their files, `book` the money, `paths` which files may be read,
`answers` what the session is told, `server` the protocol.
"""
