"""The folder on a real file system: what an editor, a ConfigMap mount or a slow copy does to it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from services.controller.folder import FILE_MAX_BYTES, Folder, Pass


def settled(path: Path, text: str, age_s: float = 10.0) -> Path:
    """Writes a file that was last changed some time ago, so that the look need not wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    at_s = time.time() - age_s
    os.utime(path, (at_s, at_s))
    return path


def test_manifests_are_found_at_any_depth_and_dot_names_are_not(tmp_path: Path) -> None:
    for name in (
        "a.yaml",
        "b.yml",
        "c.json",
        "deep/er/d.yaml",
        ".hidden.yaml",
        ".git/e.yaml",
        "f.txt",
        "g.yaml~",
        "h.yaml.swp",
    ):
        settled(tmp_path / name, "x")
    seen = Folder(tmp_path).look()
    assert set(seen.changed) == {"a.yaml", "b.yml", "c.json", "deep/er/d.yaml"}
    assert not seen.gone and not seen.unreadable


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "1")
    folder = Folder(tmp_path)
    assert folder.look().changed == {"a.yaml": b"1"}
    seen = folder.look()
    assert not seen.changed and not seen.gone and not seen.unreadable
    settled(tmp_path / "a.yaml", "2")
    settled(tmp_path / "b.yaml", "3")
    assert folder.look().changed == {"a.yaml": b"2", "b.yaml": b"3"}
    (tmp_path / "a.yaml").unlink()
    assert folder.look().gone == {"a.yaml"}
    assert folder.files == 1


def test_a_change_of_the_same_size_and_second_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("1")
    folder = Folder(tmp_path)
    for text in "2345":
        assert folder.look().changed
        path.write_text(text)
    assert folder.look().changed == {"a.yaml": b"5"}


def test_a_file_renamed_into_place_is_read_although_it_is_older(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "1", age_s=10)
    folder = Folder(tmp_path)
    folder.look()
    settled(tmp_path / ".a.yaml.tmp", "2", age_s=100).rename(tmp_path / "a.yaml")
    assert folder.look().changed == {"a.yaml": b"2"}


def test_a_fresh_file_is_read_within_one_look(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    start_s = time.monotonic()
    assert Folder(tmp_path).look().changed == {"a.yaml": b"1"}
    assert time.monotonic() - start_s < 0.4


def test_a_time_in_the_future_does_not_keep_a_file_from_being_read(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "1", age_s=-3600)
    assert Folder(tmp_path).look().changed == {"a.yaml": b"1"}


def test_a_file_in_the_middle_of_a_slow_copy_is_never_read_half(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "old")
    folder = Folder(tmp_path, settle_s=0.15)  # a copier that waits for its turn is no end of the copy
    folder.look()
    pieces = [b"line %d\n" % i for i in range(60)]

    def copy() -> None:
        with (tmp_path / "a.yaml").open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.005)

    copier = threading.Thread(target=copy)
    copier.start()
    seen = [folder.look() for _ in range(4)]
    copier.join()
    seen.append(folder.look())
    assert [one.changed["a.yaml"] for one in seen if one.changed] == [b"".join(pieces)]


def test_a_file_that_is_written_for_ever_is_unreadable_and_holds_up_nobody(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "old")
    folder = Folder(tmp_path, settle_s=0.15)
    folder.look()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.002):
            with (tmp_path / "a.yaml").open("a") as file:
                file.write("x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        settled(tmp_path / "b.yaml", "b")
        while (tmp_path / "a.yaml").read_text() == "old":
            time.sleep(0.001)
        seen = folder.look()
        assert seen.changed == {"b.yaml": b"b"} and "written" in seen.unreadable["a.yaml"]
    finally:
        stop.set()
        writer.join()
    assert folder.look().changed.keys() == {"a.yaml"}


def test_an_editor_that_moves_the_old_file_away_first_deletes_nothing(tmp_path: Path) -> None:
    settled(tmp_path / "a.yaml", "1")
    folder = Folder(tmp_path)
    folder.look()
    (tmp_path / "a.yaml").rename(tmp_path / "a.yaml~")

    def put_back() -> None:
        time.sleep(0.01)
        settled(tmp_path / "a.yaml", "2")

    editor = threading.Thread(target=put_back)
    editor.start()
    seen = folder.look()
    editor.join()
    assert not seen.gone
    assert seen.changed == {"a.yaml": b"2"}


def test_a_mounted_config_map_is_followed_through_its_links(tmp_path: Path) -> None:
    settled(tmp_path / "..2026_1" / "a.yaml", "1")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    folder = Folder(tmp_path)
    assert folder.look().changed == {"a.yaml": b"1"}
    settled(tmp_path / "..2026_2" / "a.yaml", "2")
    (tmp_path / "..data_tmp").symlink_to("..2026_2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert folder.look().changed == {"a.yaml": b"2"}


def test_a_linked_directory_is_read_and_a_loop_ends(tmp_path: Path) -> None:
    settled(tmp_path / "elsewhere" / "a.yaml", "1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    assert set(Folder(root).look().changed) == {"linked/a.yaml"}


def test_a_link_to_nothing_is_no_file_and_a_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    (tmp_path / "b.yaml").symlink_to("b.yaml")
    seen = Folder(tmp_path).look()
    assert not seen.changed
    assert set(seen.unreadable) == {"b.yaml"}


def test_a_folder_that_is_gone_takes_no_file_away(tmp_path: Path) -> None:
    root = tmp_path / "root"
    settled(root / "a.yaml", "1")
    folder = Folder(root)
    folder.look()
    root.rename(tmp_path / "away")
    seen = folder.look()
    assert not seen.gone and seen.unreadable == {"": "No such file or directory"}
    (tmp_path / "away").rename(root)
    seen = folder.look()
    assert not seen.changed and not seen.unreadable


def test_an_enormous_file_is_not_read(tmp_path: Path) -> None:
    path = settled(tmp_path / "a.yaml", "")
    os.truncate(path, FILE_MAX_BYTES + 1)
    settled_at_s = time.time() - 10
    os.utime(path, (settled_at_s, settled_at_s))
    assert "16 MiB" in Folder(tmp_path).look().unreadable["a.yaml"]


def test_two_thousand_files_are_looked_at_quickly_when_nothing_changed(tmp_path: Path) -> None:
    for i in range(2000):
        settled(tmp_path / f"d{i % 20}" / f"{i}.yaml", "x")
    folder = Folder(tmp_path)
    assert len(folder.look().changed) == 2000
    start_s = time.perf_counter()
    folder.look()
    # about 5 ms on a quiet machine
    assert time.perf_counter() - start_s < 0.5


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A FIFO would be waited for without end, and a device has none."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    settled(tmp_path / "there" / "a.yaml", "x")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "there" / "a.yaml")
    found: list[Pass] = []
    looking = threading.Thread(target=lambda: found.append(Folder(tmp_path).look()), daemon=True)
    looking.start()
    looking.join(5)
    assert found, "the look hangs"
    assert set(found[0].changed) == {"there/a.yaml", "link.yaml"}
    assert found[0].unreadable == dict.fromkeys(("pipe.yaml", "zero.yaml"), "it is not a regular file")


def test_what_is_really_read_is_counted(tmp_path: Path) -> None:
    """Files of /proc claim a size of 0."""
    (tmp_path / "a.yaml").symlink_to("/proc/self/pagemap")
    assert "a.yaml" in Folder(tmp_path).look().unreadable
