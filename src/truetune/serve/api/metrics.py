"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Gauges:
    """Counters of one server, in a registry of its own.

    requests: by path and status. tokens_in, tokens_out: of prompts and answers. running, waiting: answers that have
    begun, and that have not. first_token: seconds until they did. token: seconds from one token to the next.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        here = self.registry
        self.requests = Counter("truetune_requests", "Requests, by path and status", ("path", "status"), registry=here)
        self.tokens_in = Counter("truetune_prompt_tokens", "Tokens of prompts", registry=here)
        self.tokens_out = Counter("truetune_answer_tokens", "Tokens of answers", registry=here)
        self.running = Gauge("truetune_running", "Answers that are being written", registry=here)
        self.waiting = Gauge("truetune_waiting", "Answers that wait for a place or for their first token",
                             registry=here)
        self.dropped = Counter("truetune_disconnects", "Requests whose client left before the answer was whole",
                               registry=here)
        self.first_token = Histogram("truetune_first_token_seconds", "From the request to the first token",
                                     buckets=_SECONDS, registry=here)
        self.token = Histogram("truetune_token_seconds", "From one token to the next", buckets=_SECONDS, registry=here)

    def page(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
