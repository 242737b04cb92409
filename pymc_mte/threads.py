"""Threads of linear algebra: one, where several would only wait for each other."""

from contextlib import ContextDecorator
from threading import Lock
from types import TracebackType

from threadpoolctl import threadpool_limits


class SharedLimit(ContextDecorator):
    """While anyone is within this context, or a function it decorates, products of matrices use one thread.

    The limit holds for the whole process. The first who enters sets it and the last who leaves puts it back:
    contexts may be nested and may overlap in several threads.
    """

    def __init__(self) -> None:
        self._lock, self._within = Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._limits = threadpool_limits(1, user_api="blas")
            self._within += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._limits.restore_original_limits()


ONE_BLAS_THREAD = SharedLimit()
"""For many small products: sums over rows of draws, rank tests, likelihoods of patterns."""
