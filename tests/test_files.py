"""Files that appear whole or not at all: what may stand where they go."""

import os
import stat
from pathlib import Path

import pytest

import trainstep as ts
from trainstep._files import check_whole_file, whole_file
from trainstep.cli import main

from .helpers import bits, network


def test_a_link_goes_on_leading_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "model", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    model = network((4, 3))
    model.save(link)
    assert link.is_symlink()
    assert bits(ts.nn.load(real)) == bits(model)
    assert sorted(os.listdir(tmp_path)) == ["link", "there"]
    assert os.listdir(tmp_path / "there") == ["model"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o200, 0o444])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "model"
    path.touch()
    path.chmod(mode)
    network((4, 3)).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_size > 0
    with whole_file(str(path)) as partial:  # by nobody else while it is written
        assert stat.S_IMODE(os.stat(partial).st_mode) == 0o600
    with whole_file(str(tmp_path / "new")) as partial:
        assert stat.S_IMODE(os.stat(partial).st_mode) == 0o666 & ~umask()


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_what_an_earlier_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    """In a container a process has the same number each time."""
    left = tmp_path / f"model.{os.getpid()}.partial"
    left.write_bytes(b"half")
    check_whole_file(str(tmp_path / "model"))
    assert not left.exists()
    left.write_bytes(b"half")
    network((4, 3)).save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
    assert ts.nn.load(tmp_path / "model").num_parameters == 15


def test_links_in_a_circle_stay(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        network((4, 3)).save(one)
    assert one.is_symlink()


def test_a_link_to_nothing_gets_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "model")
    network((4, 3)).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert ts.nn.load(tmp_path / "model").num_parameters == 15


def test_what_is_no_file_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file: .*pipe"):
        network((4, 3)).save(pipe)
    with pytest.raises(IsADirectoryError, match="Is a directory: "), whole_file(str(tmp_path)):
        pass
    for option in ("--save", "--log", "--checkpoint"):
        assert main(["train", "digits", "--epochs", "1", option, str(pipe)]) == 2
        assert capsys.readouterr().err == f"trainstep: error: {option}: {pipe} cannot be written, not a regular file\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_name_without_room_is_found_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ("x" * 250)
    assert main(["train", "digits", "--epochs", "1", "--save", str(path)]) == 2
    assert capsys.readouterr().err == f"trainstep: error: --save: {path} cannot be written, file name too long\n"
    assert os.listdir(tmp_path) == []
