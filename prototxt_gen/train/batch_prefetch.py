"""Batches made ahead in threads: decoding, reading and NumPy's loops leave Python's lock to the solver."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from prototxt_gen.train.data_layer_batches import Array, Batches


class Prefetcher:
    """Gives batch after batch, `threads` of them under way. `position` is the index of the next one."""

    def __init__(self, batches: Batches, threads: int) -> None:
        self.batches, self.threads = batches, threads
        self.position = 0
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._ahead: OrderedDict[int, Future[tuple[Array, ...]]] = OrderedDict()

    def peek(self) -> tuple[Array, ...]:
        """Return the next batch without going on to the one after it."""
        for batch in range(self.position, self.position + self.threads + 1):
            if batch not in self._ahead:
                self._ahead[batch] = self._begin(batch)
        return self._ahead[self.position].result()

    def _begin(self, batch: int) -> Future[tuple[Array, ...]]:
        if self._pool is not None:
            return self._pool.submit(self.batches.make, batch)
        made: Future[tuple[Array, ...]] = Future()
        made.set_result(self.batches.make(batch))
        return made

    def next(self) -> tuple[Array, ...]:
        """Return the next batch."""
        found = self.peek()
        self._ahead.pop(self.position, None)
        self.position += 1
        return found

    def seek(self, batch: int) -> None:
        """Go on with batch number `batch`."""
        if batch != self.position:
            self._forget()
        self.position = batch

    def _forget(self) -> None:
        for future in self._ahead.values():
            future.cancel()
        self._ahead.clear()

    def close(self) -> None:
        """End the threads."""
        self._forget()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
