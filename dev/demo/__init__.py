"""`make demo`: run an example Dag with a real Airflow, and print what happens.

Options are environment variables, of which an empty one counts as not set:

- WHAT: photo (default), batch, chain or review, see `examples`
- IMAGE: your own photograph; with WHAT=batch, a folder of PNG files
- PROMPT: what to do with it
- OUTPUT: the folder for the edited pictures
- PORT: of the UI
- KEEP=1: keep the UI open until Ctrl-C
- ODIROUTER_API_KEY: use the real, paid service

Exit codes: 0 success, 1 failure, 2 wrong option, 130 interrupted.
"""
