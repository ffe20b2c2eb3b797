# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads at /metrics."""

from collections.abc import Callable

import prometheus_client

# Seconds; a turn of the model takes a few milliseconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'


class Metrics:
  """Counts of one service, apart from those of others in the process."""

  def __init__(self) -> None:
    self._registry = prometheus_client.CollectorRegistry()
    self._requests = prometheus_client.Counter(
        'dropoutnet_requests',
        'Requests by path and status.',
        ('method', 'path', 'status'),
        registry=self._registry,
    )
    self._seconds = prometheus_client.Histogram(
        'dropoutnet_request_seconds',
        'From the first byte of a request to the last of its answer.',
        ('path',),
        registry=self._registry,
        buckets=_BUCKETS,
    )

  def watch(self, name: str, what: str, read: Callable[[], float]) -> None:
    """A number that is looked up when somebody asks."""
    gauge = prometheus_client.Gauge(
        f'dropoutnet_{name}', what, registry=self._registry
    )
    gauge.set_function(read)

  def count(self, method: str, path: str, status: int, seconds: float) -> None:
    """A request that was answered.

    Args:
      method: of HTTP.
      path: its route and not what a client wrote: there are few.
      status: of the answer.
      seconds: that it took.
    """
    self._requests.labels(method, path, str(status)).inc()
    self._seconds.labels(path).observe(seconds)

  def text(self) -> bytes:
    """All of it, in the text format of Prometheus."""
    return prometheus_client.generate_latest(self._registry)
