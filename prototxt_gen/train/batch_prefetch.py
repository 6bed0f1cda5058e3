"""Batches one after another, computed ahead in threads: used by the Python layer `BatchFeed` inside Caffe's process.

Threads are enough here: image decoding, file access and NumPy release Python's global lock while the solver computes.
`data.worker_processes` does the same with processes.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from prototxt_gen.train.data_layer_batches import Array, DataLayerBatches


class Prefetcher:
    """Returns batch after batch and computes the following `threads` batches in the background.

    `next_batch` is the index of the batch that `next` returns. With 0 threads nothing is computed ahead.
    """

    def __init__(self, batches: DataLayerBatches, threads: int) -> None:
        self.batches, self.threads = batches, threads
        self.next_batch = 0
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._pending: OrderedDict[int, Future[tuple[Array, ...]]] = OrderedDict()

    def peek(self) -> tuple[Array, ...]:
        """Return the next batch without advancing."""
        for batch in range(self.next_batch, self.next_batch + self.threads + 1):
            if batch not in self._pending:
                self._pending[batch] = self._submit(batch)
        return self._pending[self.next_batch].result()

    def _submit(self, batch: int) -> Future[tuple[Array, ...]]:
        if self._pool is not None:
            return self._pool.submit(self.batches.make, batch)
        future: Future[tuple[Array, ...]] = Future()
        future.set_result(self.batches.make(batch))
        return future

    def next(self) -> tuple[Array, ...]:
        """Return the next batch and advance by one."""
        arrays = self.peek()
        self._pending.pop(self.next_batch, None)
        self.next_batch += 1
        return arrays

    def seek(self, batch: int) -> None:
        """Make batch number `batch` the next one."""
        if batch != self.next_batch:
            self._cancel_pending()
        self.next_batch = batch

    def _cancel_pending(self) -> None:
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()

    def close(self) -> None:
        """Stop the threads."""
        self._cancel_pending()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
