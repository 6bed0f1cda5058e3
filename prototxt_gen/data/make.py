"""`make`: any source becomes an LMDB or HDF5 set that Caffe reads. Interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from prototxt_gen.data.data_errors import DataError, named
from prototxt_gen.data.data_set_writers import Hdf5Writer, LmdbWriter, Record, Writer
from prototxt_gen.data.partial_data_set import Chunk, Partial
from prototxt_gen.data.record_maker import Options, Preparer, Result
from prototxt_gen.data.source_detection import open_source
from prototxt_gen.data.sources import Source

Progress = Callable[[int, int], None]

_SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class Made:
    """What `make` did. `source` is what the net's data layer names; `broken` names the pictures left out, and why."""

    path: Path
    source: Path
    count: int
    shapes: dict[str, int]
    classes: tuple[str, ...]
    broken: tuple[str, ...]
    resumed_at: int

    @property
    def mixed(self) -> bool:
        """Return whether shapes differ, which Caffe takes only with a crop_size."""
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
) -> Made:
    """Write the samples of `src` to the folder `out` and check it by reading it back.

    `kind`, `split`, `root`: see `open_source`. `resize` = (height, width). `shuffle_seed`: None keeps the order.
    `encoded`: "png" or "jpg" stores picture files instead of pixels (LMDB). `gray`: one channel. `bgr`: turn sources
    that store RGB (CIFAR, .npz) around; otherwise their order stays, as in Caffe's examples. `part` = (0, 0.9) takes
    the first nine tenths after shuffling. `skip_broken`: leave out pictures that cannot be decoded; otherwise they are
    all named in one error, and what is done stays done. `force` replaces `out` once the new set is complete.
    `progress(done, total)` is called after every sample. Raises DataError.
    """
    target = Path(out)
    if target.exists() and not force:
        raise DataError(f"{target}: there already; --force overwrites")
    options = Options(to, resize, shuffle_seed, encoded, gray, bgr, part, file_bytes)
    source = open_source(src, kind, split, root, color=not gray)
    if not len(source):
        raise DataError(f"{src} holds no samples")
    return _Making(source, options, target, workers or min(8, os.cpu_count() or 1)).run(skip_broken, progress)


class _Making:
    """One call of `make`."""

    def __init__(self, source: Source, options: Options, out: Path, workers: int) -> None:
        self.source, self.options, self.out, self.workers = source, options, out, workers
        self.prepare = Preparer(source, options)
        self.total = len(self.prepare)
        self.probes = self.prepare.probes()

    def run(self, skip_broken: bool, progress: Progress | None) -> Made:
        """Write what is missing, check everything, give it its name."""
        arguments = {**asdict(self.options), "source": self.source.digest(), "version": 1}
        partial = Partial(self.out, json.loads(json.dumps(arguments)))
        try:
            with partial.locked():
                partial.open()
                return self._run(partial, skip_broken, progress or (lambda done, total: None))
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"cannot write {self.out}: {why}; run again to go on from here") from error

    def _run(self, partial: Partial, skip_broken: bool, progress: Progress) -> Made:
        if not skip_broken:  # pictures that were broken may have been mended since
            partial.back_to(next((n for n, chunk in enumerate(partial.chunks) if chunk.broken), len(partial.chunks)))
        resumed_at = len(partial.chunks)
        writer = self._writer(partial.content)
        try:
            self._check_disk(partial.content)
            self._write(writer, partial, progress, resumed_at)
            broken = _judge(partial.chunks, self.total, skip_broken)
            writer.finish(len(partial.chunks))
        finally:
            writer.close()
        _verify(writer, partial)
        made = self._made(partial, broken, min(resumed_at * writer.chunk, self.total))
        _describe(made, self.options, self.source, partial)
        partial.publish()
        return made

    def _made(self, partial: Partial, broken: tuple[str, ...], resumed_at: int) -> Made:
        shapes: Counter[str] = Counter()
        for chunk in partial.chunks:
            shapes.update(chunk.shapes)
        count = sum(chunk.rows for chunk in partial.chunks)
        source = self.out / "list.txt" if self.options.to == "hdf5" else self.out
        return Made(self.out, source, count, dict(shapes), self.source.classes, broken, resumed_at)

    def _writer(self, content: Path) -> Writer:
        if self.options.to == "lmdb":
            return LmdbWriter(content)
        return Hdf5Writer(content, self.out, 4 * self.probes[0].image.size, self.options.file_bytes)

    def _write(self, writer: Writer, partial: Partial, progress: Progress, first: int) -> None:
        """Prepare chunks in threads (OpenCV works outside Python's lock) and store each while the next is prepared."""
        total = self.total
        starts = range(first * writer.chunk, total, writer.chunk)
        done = starts.start
        pool = ThreadPoolExecutor(self.workers)
        try:
            for prepared in _ahead(pool, self.prepare, [range(s, min(s + writer.chunk, total)) for s in starts]):
                results: list[Result] = []
                for result in prepared:
                    results.append(result)
                    done += 1
                    progress(done, total)
                partial.add(self._store(writer, len(partial.chunks), results))
        finally:
            pool.shutdown(cancel_futures=True)

    def _store(self, writer: Writer, number: int, results: Sequence[Result]) -> Chunk:
        records = [result for result in results if isinstance(result, Record)]
        broken = tuple(result for result in results if isinstance(result, str))
        shapes = Counter("x".join(map(str, record.image.shape)) for record in records)
        if self.options.to == "hdf5":
            self._check_shapes(records)
        crc = writer.write(number, records) if records else 0
        return Chunk(len(records), crc, broken, dict(shapes))

    def _check_shapes(self, records: Sequence[Record]) -> None:
        expected = self.probes[0].image.shape
        for record in records:
            if record.image.shape != expected:
                name = self.prepare.name(record.position)
                raise DataError(f"{name} is {record.image.shape}, the first {expected}; HDF5 needs one: give resize")

    def _check_disk(self, content: Path) -> None:
        each = [4 * r.image.size + 4 if self.options.to == "hdf5" else r.lmdb_bytes() for r in self.probes]
        stored = sum(file.stat().st_blocks * 512 for file in content.iterdir())
        need = int(sum(each) / len(each) * self.total) + _SPARE_BYTES - stored
        free = shutil.disk_usage(content).free
        if need > free:
            raise DataError(f"{self.out} needs about {need >> 20} MB more, and the disk has {free >> 20} MB free")


def _ahead(pool: ThreadPoolExecutor, prepare: Preparer, chunks: Sequence[range]) -> Iterator[Iterator[Result]]:
    """Yield each chunk's results; the next chunk is begun before one is handed out."""
    waiting: Iterator[Result] | None = None
    for chunk in chunks:
        begun = pool.map(prepare, chunk)
        if waiting is not None:
            yield waiting
        waiting = begun
    if waiting is not None:
        yield waiting


def _judge(chunks: Sequence[Chunk], total: int, skip_broken: bool) -> tuple[str, ...]:
    """Return the broken pictures; raises DataError naming them unless they may be left out."""
    broken = tuple(reason for chunk in chunks for reason in chunk.broken)
    if broken and not skip_broken:
        raise DataError(f"{len(broken)} of {total} pictures are broken ({named(broken)}); mend them, or skip broken "
                        f"ones; the others are stored already")  # fmt: skip
    return broken


def _verify(writer: Writer, partial: Partial) -> None:
    """Compare what is on the disk with what was written; a chunk that differs is made anew by the next run."""
    rows = [chunk.rows for chunk in partial.chunks]
    expected = [(chunk.rows, chunk.crc) for chunk in partial.chunks]
    found = list(writer.checksums(rows))
    if found != expected:
        wrong = next((n for n, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), 0)
        partial.back_to(wrong)
        raise DataError(f"{partial.out}: read back, chunk {wrong} is not what was written; run again to write it anew")


def _describe(made: Made, options: Options, source: Source, partial: Partial) -> None:
    """Put the classes and an account of the set beside the data."""
    if made.classes:
        (partial.content / "labels.txt").write_text("".join(f"{name}\n" for name in made.classes))
    account = {
        "count": made.count,
        "shapes": made.shapes,
        "classes": made.classes,
        "broken": made.broken,
        "options": asdict(options),
        "channel_order": "bgr" if options.bgr else source.order,
        "source": source.digest(),
        "crc32": [chunk.crc for chunk in partial.chunks],
    }
    (partial.content / "dataset.json").write_text(json.dumps(account, indent=1) + "\n")
