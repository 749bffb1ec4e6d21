"""
Many edits as one task: their list, what is remembered of each, and what is done about them.

Loaded when a task runs, not when a Dag is parsed.
"""
