"""`make`: convert any source to an LMDB or HDF5 data set that Caffe reads. An interrupted run continues."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from prototxt_gen.data.data_errors import DataError, abbreviated
from prototxt_gen.data.data_set_writers import Hdf5Writer, LmdbWriter, Record, Writer
from prototxt_gen.data.partial_data_set import Chunk, PartialDataSet
from prototxt_gen.data.record_maker import RecordMaker, RecordOrReason, StorageOptions
from prototxt_gen.data.source_detection import open_source
from prototxt_gen.data.sources import SampleSource

Progress = Callable[[int, int], None]

_SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class MakeResult:
    """The result of `make`. `source` is the path for a data layer; `broken` lists skipped images with reasons."""

    path: Path
    source: Path
    count: int
    shapes: dict[str, int]
    classes: tuple[str, ...]
    broken: tuple[str, ...]
    resumed_at: int

    @property
    def mixed(self) -> bool:
        """Whether shapes differ, which Caffe accepts only with a crop_size."""
        return len(self.shapes) > 1


def make(
    src: str | Path,
    out: str | Path,
    to: str = "lmdb",
    *,
    kind: str | None = None,
    split: str | None = None,
    root: str | None = None,
    resize: tuple[int, int] | None = None,
    shuffle_seed: int | None = None,
    encoded: str | None = None,
    gray: bool = False,
    bgr: bool = False,
    part: tuple[float, float] | None = None,
    skip_broken: bool = False,
    force: bool = False,
    file_bytes: int = 1 << 28,
    workers: int | None = None,
    progress: Progress | None = None,
) -> MakeResult:
    """Write the samples of `src` to the folder `out`, and check the result by reading it back.

    `kind`, `split`, `root`: see `open_source`. `resize` = (height, width). `shuffle_seed`: None keeps the order.
    `encoded`: "png" or "jpg" stores image files instead of pixels (LMDB only). `gray`: one channel. `bgr`: convert RGB
    sources (CIFAR, .npz) to BGR; default: keep their order, as Caffe's examples do. `part` = (0, 0.9) takes the first
    nine tenths after shuffling. `skip_broken`: leave out images that cannot be decoded; default: one error names them
    all, and the work done is kept for the next run. `force` replaces `out` when the new data set is complete.
    `progress(done, total)` is called after every sample. Raises DataError.
    """
    target = Path(out)
    if target.exists() and not force:
        raise DataError(f"{target}: there already; --force overwrites")
    if target.exists() and not target.is_dir():
        raise DataError(f"{target}: not a folder, which a data set is")
    options = StorageOptions(to, resize, shuffle_seed, encoded, gray, bgr, part, file_bytes)
    source = open_source(src, kind, split, root, color=not gray)
    if not len(source):
        raise DataError(f"{src} holds no samples")
    return _MakeRun(source, options, target, workers or min(8, os.cpu_count() or 1)).run(skip_broken, progress)


class _MakeRun:
    """The state of one call of `make`."""

    def __init__(self, source: SampleSource, options: StorageOptions, out: Path, workers: int) -> None:
        self.source, self.options, self.out, self.workers = source, options, out, workers
        self.record_maker = RecordMaker(source, options)
        self.total = len(self.record_maker)
        self.sample_records = self.record_maker.sample_records()

    def run(self, skip_broken: bool, progress: Progress | None) -> MakeResult:
        """Write the missing chunks, check the data set, and rename it to its final name."""
        arguments = {**asdict(self.options), "source": self.source.digest(), "version": 1}
        partial = PartialDataSet(self.out, json.loads(json.dumps(arguments)))
        try:
            with partial.locked():
                partial.resume_or_begin()
                return self._run(partial, skip_broken, progress or (lambda done, total: None))
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"cannot write {self.out}: {why}; run again to continue from here") from error

    def _run(self, partial: PartialDataSet, skip_broken: bool, progress: Progress) -> MakeResult:
        if not skip_broken:  # broken images may have been repaired since
            partial.drop_chunks_from(
                next((n for n, chunk in enumerate(partial.chunks) if chunk.broken), len(partial.chunks))
            )
        resumed_at = len(partial.chunks)
        writer = self._writer(partial.content)
        try:
            self._check_disk(partial.content)
            self._write(writer, partial, progress, resumed_at)
            broken = _broken_images(partial.chunks, self.total, skip_broken)
            writer.finish(len(partial.chunks))
        finally:
            writer.close()
        _verify(writer, partial)
        result = self._result(partial, broken, min(resumed_at * writer.chunk, self.total))
        _write_description(result, self.options, self.source, partial)
        partial.publish()
        return result

    def _result(self, partial: PartialDataSet, broken: tuple[str, ...], resumed_at: int) -> MakeResult:
        shapes: Counter[str] = Counter()
        for chunk in partial.chunks:
            shapes.update(chunk.shapes)
        count = sum(chunk.rows for chunk in partial.chunks)
        source = self.out / "list.txt" if self.options.to == "hdf5" else self.out
        return MakeResult(self.out, source, count, dict(shapes), self.source.classes, broken, resumed_at)

    def _writer(self, content: Path) -> Writer:
        if self.options.to == "lmdb":
            return LmdbWriter(content)
        return Hdf5Writer(content, self.out, 4 * self.sample_records[0].image.size, self.options.file_bytes)

    def _write(self, writer: Writer, partial: PartialDataSet, progress: Progress, first: int) -> None:
        """Prepare chunks in threads (OpenCV releases Python's lock) and store each while the next one is prepared."""
        total = self.total
        starts = range(first * writer.chunk, total, writer.chunk)
        done = starts.start
        pool = ThreadPoolExecutor(self.workers)
        try:
            for prepared in _prepare_ahead(
                pool, self.record_maker, [range(s, min(s + writer.chunk, total)) for s in starts]
            ):
                results: list[RecordOrReason] = []
                for result in prepared:
                    results.append(result)
                    done += 1
                    progress(done, total)
                partial.add(self._store(writer, len(partial.chunks), results))
        finally:
            pool.shutdown(cancel_futures=True)

    def _store(self, writer: Writer, number: int, results: Sequence[RecordOrReason]) -> Chunk:
        records = [result for result in results if isinstance(result, Record)]
        broken = tuple(result for result in results if isinstance(result, str))
        shapes = Counter("x".join(map(str, record.image.shape)) for record in records)
        if self.options.to == "hdf5":
            self._check_shapes(records)
        crc = writer.write(number, records) if records else 0
        return Chunk(len(records), crc, broken, dict(shapes))

    def _check_shapes(self, records: Sequence[Record]) -> None:
        expected = self.sample_records[0].image.shape
        for record in records:
            if record.image.shape != expected:
                name = self.record_maker.name(record.position)
                raise DataError(f"{name} is {record.image.shape}, the first {expected}; HDF5 needs one: give resize")

    def _check_disk(self, content: Path) -> None:
        sizes = [4 * r.image.size + 4 if self.options.to == "hdf5" else r.lmdb_size() for r in self.sample_records]
        stored = sum(file.stat().st_blocks * 512 for file in content.iterdir())
        needed = int(sum(sizes) / len(sizes) * self.total) + _SPARE_BYTES - stored
        free = shutil.disk_usage(content).free
        if needed > free:
            raise DataError(f"{self.out} needs about {needed >> 20} MB more, and the disk has {free >> 20} MB free")


def _prepare_ahead(
    pool: ThreadPoolExecutor, record_maker: RecordMaker, chunks: Sequence[range]
) -> Iterator[Iterator[RecordOrReason]]:
    """Yield the records of each chunk; the next chunk is already in preparation."""
    waiting: Iterator[RecordOrReason] | None = None
    for chunk in chunks:
        submitted = pool.map(record_maker, chunk)
        if waiting is not None:
            yield waiting
        waiting = submitted
    if waiting is not None:
        yield waiting


def _broken_images(chunks: Sequence[Chunk], total: int, skip_broken: bool) -> tuple[str, ...]:
    """Return the broken images with reasons. Raises DataError, naming them, unless they may be skipped."""
    broken = tuple(reason for chunk in chunks for reason in chunk.broken)
    if broken and not skip_broken:
        raise DataError(f"{len(broken)} of {total} images are broken ({abbreviated(broken)}); repair them, or skip "
                        f"broken ones; the others are stored already")  # fmt: skip
    return broken


def _verify(writer: Writer, partial: PartialDataSet) -> None:
    """Read the data set back and compare checksums. A chunk that differs is written again by the next run."""
    rows = [chunk.rows for chunk in partial.chunks]
    expected = [(chunk.rows, chunk.crc) for chunk in partial.chunks]
    found = list(writer.checksums(rows))
    if found != expected:
        wrong = next((n for n, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), 0)
        partial.drop_chunks_from(wrong)
        raise DataError(
            f"{partial.out}: chunk {wrong}, read back, differs from what was written; run again to rewrite it"
        )


def _write_description(
    result: MakeResult, options: StorageOptions, source: SampleSource, partial: PartialDataSet
) -> None:
    """Write labels.txt with the class names, and dataset.json with a description of the data set."""
    if result.classes:
        (partial.content / "labels.txt").write_text("".join(f"{name}\n" for name in result.classes))
    description = {
        "count": result.count,
        "shapes": result.shapes,
        "classes": result.classes,
        "broken": result.broken,
        "options": asdict(options),
        "channel_order": "bgr" if options.bgr else source.order,
        "source": source.digest(),
        "crc32": [chunk.crc for chunk in partial.chunks],
    }
    (partial.content / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
