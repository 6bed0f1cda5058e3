"""Output on files, symbolic links, FIFOs, devices and stdout; all nodes are made in a temporary folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from converters.common.staged_output import staged_output
from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError

Write = Callable[[Path], None]


def write_replacing(path: Path) -> None:
    files.write_text(path, "new")


def write_staged(path: Path) -> None:
    with staged_output(path, force=True) as temporary:
        temporary.touch(0o600)
        temporary.write_text("new")


@pytest.fixture(params=[write_replacing, write_staged])
def write(request: pytest.FixtureRequest) -> Write:
    """Each of the two ways in which this toolkit writes an output."""
    function: Write = request.param
    return function


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@contextmanager
def reader(path: Path) -> Iterator[list[str]]:
    """Read a FIFO in a thread; after the block the list holds its content."""
    content: list[str] = []
    thread = threading.Thread(target=lambda: content.append(path.read_text()), daemon=True)
    thread.start()
    yield content
    thread.join(10)


def test_symbolic_link_stays_and_its_target_is_written(tmp_path: Path, write: Write) -> None:
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / "middle").symlink_to("folder/target")
    link.symlink_to(tmp_path / "middle")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link", "middle", "target"]


def test_dangling_link_gets_its_target(tmp_path: Path, write: Write) -> None:
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_circle_of_links_is_an_error(tmp_path: Path, write: Write) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(PrototxtGenError, match=r"a: cannot be written: Too many levels of symbolic links"):
        write(tmp_path / "a")
    assert (tmp_path / "a").readlink() == Path("b")


def test_link_to_another_file_system(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename across file systems fails with EXDEV; the content is then copied beside the target."""
    real_replace = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent != Path(target).parent:
            raise OSError(18, "Invalid cross-device link")
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "target").write_text("old")
    (tmp_path / "link").symlink_to("other/target")
    write(tmp_path / "link")
    assert (tmp_path / "other" / "target").read_text() == "new"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["target"]


@pytest.mark.parametrize("through_link", [False, True])
def test_fifo_is_written_and_stays(tmp_path: Path, fifo: Path, write: Write, through_link: bool) -> None:
    path = tmp_path / "link" if through_link else fifo
    if through_link:
        path.symlink_to("fifo")
    with reader(fifo) as content:
        write(path)
    assert content == ["new"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_fifo_needs_no_force(fifo: Path) -> None:
    with reader(fifo) as content:
        files.write_text(fifo, "new", force=False)
    assert content == ["new"]


def make_device(path: Path, kind: int, major: int, minor: int) -> Path:
    try:
        os.mknod(path, 0o600 | kind, os.makedev(major, minor))
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    return path


def test_character_device_is_written_and_stays(tmp_path: Path, write: Write) -> None:
    device = make_device(tmp_path / "null", stat.S_IFCHR, 1, 3)
    write(device)
    files.write_text(device, "new", force=False)
    assert stat.S_ISCHR(device.stat().st_mode)


def test_full_device_is_one_sentence(tmp_path: Path, write: Write) -> None:
    device = make_device(tmp_path / "full", stat.S_IFCHR, 1, 7)
    with pytest.raises(PrototxtGenError, match=r"full: cannot be written: No space left on device"):
        write(device)
    assert stat.S_ISCHR(device.stat().st_mode)


def test_block_device_needs_force(tmp_path: Path) -> None:
    """It has content. The node of an unused number is never opened here."""
    path = tmp_path / "disk"
    try:
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(240, 250))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    with pytest.raises(PrototxtGenError, match="disk: already exists"):
        files.refuse_overwriting([path], force=False)
    assert files.is_written_directly(path)


def test_several_files_do_not_go_into_a_fifo(fifo: Path) -> None:
    with pytest.raises(PrototxtGenError, match="fifo: takes one file, and there are 2"), staged_output(fifo) as path:
        path.write_text("one")
        path.with_name("two").write_text("two")


def test_folder_does_not_go_into_a_fifo(fifo: Path) -> None:
    with (
        pytest.raises(PrototxtGenError, match="fifo: the output is a folder"),
        staged_output(fifo, True, is_folder=True),
    ):
        pass
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_link_to_a_folder_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged_output(tmp_path / "link", is_folder=True) as folder:
        folder.mkdir()
        (folder / "file").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"


def test_dangling_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    with staged_output(tmp_path / "link", is_folder=True) as folder:
        folder.mkdir()
        (folder / "file").write_text("new")
    assert (tmp_path / "real" / "file").read_text() == "new"


def test_new_file_has_the_mode_of_the_umask(tmp_path: Path, write: Write) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_mode_of_an_overwritten_file_stays(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").touch(0o600)
    write(tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_long_name_can_be_written(tmp_path: Path, write: Write) -> None:
    write(tmp_path / ("x" * 250))
    assert (tmp_path / ("x" * 250)).read_text() == "new"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_stdout_is_appended_to(tmp_path: Path, name: str) -> None:
    """With `>> file`, stdout is a regular file, which must neither be replaced nor be truncated."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "log").write_text("before ")
    code = f"from prototxt_gen.common.files import write_text\nwrite_text({name!r}, 'new', force=False)\nprint('!')"
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, cwd=tmp_path, check=True)
    assert (tmp_path / "log").read_text() == "before new!\n"
