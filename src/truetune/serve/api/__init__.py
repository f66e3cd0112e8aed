"""`truetune api`: OpenAI's API over one engine.

From outside in: `server` starts and stops it; `middleware` lets requests in; `app` has the paths; `schemas` is what
clients send, `messages` makes conversations of it, `plan` requests to the engine; `streams` reads its answers without
blocking the event loop; `calls` and `choices` make messages of them. `key`, `metrics` and `errors` serve all of these.
"""
