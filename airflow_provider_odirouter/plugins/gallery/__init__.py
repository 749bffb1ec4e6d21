"""
The gallery: a page with the inputs and the outputs of a task instance.

It shows only what the task instance itself has pushed as XCom; it never opens a path or a URL that the browser sends.
"""
