"""Work that is handed in and done one after another, by processes that outlive whoever handed it in.

A job is a folder on disk: a typed file of options (`run.yaml`), what it prints (`log`), and how it fares (`state`).
`queue` hands in, tells and stops; `keeper` is the process of each job, which waits for its turn, starts the command and
notes how it ended; `processes` knows who lives and ends whom. May import from `options`, `run`, `files`.
"""
