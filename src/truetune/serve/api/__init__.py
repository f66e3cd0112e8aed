"""`truetune api`: OpenAI's API over one engine.

From outside in: `server` starts and stops it; `door` lets requests in; `app` has the paths; `asked` is what clients
send, `talk` makes conversations of it, `plan` requests to the engine; `pump` reads its answers without blocking the
event loop; `calls` and `voice` make messages of them. `key`, `gauges` and `refusal` serve all of these.
"""
