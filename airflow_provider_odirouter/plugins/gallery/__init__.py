"""
The gallery: a page with what a task instance was given and what it made of it.

It serves only what a task instance itself has pushed as XCom; no path or URL of a call is ever opened.
"""
