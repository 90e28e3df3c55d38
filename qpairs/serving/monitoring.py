"""The figures of a service for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Monitor:
    """Counts requests, batches, waiting requests, questions and pairs that were read."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("qpairs_requests", "Requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "qpairs_request_seconds", "Time of a request.", ["path"], buckets=SECONDS, registry=registry
        )
        self.batch_requests = Histogram(
            "qpairs_batch_requests", "Requests that were answered together.", buckets=SIZES, registry=registry
        )
        self.batch_texts = Histogram(
            "qpairs_batch_texts", "Texts of the requests that were answered together.", buckets=SIZES, registry=registry
        )
        self.queue = Gauge("qpairs_queue_length", "Requests that are waiting.", registry=registry)
        self.questions = Gauge("qpairs_questions", "Questions in the index.", registry=registry)

        self.pairs_read = Counter("qpairs_pairs_read", "Pairs that had a second look.", registry=registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All figures, in the text format of Prometheus."""
        return generate_latest(self._registry)
