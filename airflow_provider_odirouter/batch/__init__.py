"""
Many edits in one task: read and check them, submit and land them, and keep their state between tries.

Loaded when a task runs, not when a Dag is parsed.
"""
