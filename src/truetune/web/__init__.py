"""The web page: forms drawn from the schema, runs read from their folders. It holds no state that matters: what runs
are lies in their folders, what waits in the queue of `jobs`, and models are loaded in processes of their own.

`serve` starts it, `guard` decides who may come in, `page` puts it together, and each tab is a module. May import from
`options`, `rules`, `jobs`, `run`, `look`; never `train`, and never torch: what needs torch is asked of `worker`.
"""
