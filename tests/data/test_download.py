from __future__ import annotations

import hashlib
import io
import shutil
import threading
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ranksaga.data import download as module
from ranksaga.data.archives import unpack
from ranksaga.data.beir import count_beir, read_beir, write_beir
from ranksaga.data.catalog import CatalogEntry
from ranksaga.data.dataset import Dataset
from ranksaga.data.download import download, fetch
from ranksaga.errors import DataError, DownloadError

CONTENT = bytes(range(256)) * 400  # 102,400 bytes


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)


def zipped(files: dict[str, bytes], **attributes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes.get("external_attr", 0)
            archive.writestr(info, content)
    return buffer.getvalue()


def archive_of(folder: Path, top: str) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f"{top}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def in_cache(home: Path) -> list[str]:
    """Everything under the cache's datasets, hidden leftovers included."""
    return sorted(path.name for path in (home / "datasets").glob("*"))


def enter(monkeypatch: pytest.MonkeyPatch, *entries: CatalogEntry) -> None:
    """Put entries in the place of the catalogue."""
    known = MappingProxyType({entry.name: entry for entry in entries})
    monkeypatch.setattr(module, "catalog", lambda: known)
    monkeypatch.setattr(module, "catalog_entry", known.__getitem__)


@pytest.fixture
def published(site: Any, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogEntry:
    """The tiny dataset as a BEIR zip on a web server, with a catalogue that knows it."""
    content = zipped(archive_of(folder, "tiny") | {"__MACOSX/._x": b"", "tiny/notes.txt": b"not data"})
    site.files["/tiny.zip"] = content
    md5 = hashlib.md5(content).hexdigest()
    entry = CatalogEntry("tiny", "Tiny", "test", None, count_beir(folder), "tiny", len(content), md5, ("mteb/tiny",))
    enter(monkeypatch, entry)
    monkeypatch.setenv("RANKSAGA_BEIR_URL", site.url)
    return entry


def changed(entry: CatalogEntry, **fields: Any) -> CatalogEntry:
    return replace(entry, **fields)


def test_a_dataset_from_a_zip(published: CatalogEntry, site: Any, home: Path, tiny: Dataset) -> None:
    path = download("tiny")
    assert path == home / "datasets" / "tiny"
    assert read_beir(path).fingerprint == tiny.fingerprint
    assert sorted(file.name for file in path.iterdir()) == ["corpus.jsonl", "qrels", "queries.jsonl"]
    assert not list((home / "downloads").glob("*.zip*")), "the archive is not kept"
    assert download("tiny") == path
    assert len(site.asked) == 1, "what is in the cache is not asked for again"


def test_the_address_can_be_given(
    published: CatalogEntry, site: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/mirror/tiny.zip"] = site.files.pop("/tiny.zip")
    monkeypatch.setenv("RANKSAGA_BEIR_URL", f"{site.url}/mirror/")
    assert download("tiny").is_dir()


def test_several_datasets_in_one_archive(
    published: CatalogEntry, site: Any, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = archive_of(folder, "group/a") | archive_of(folder, "group/b")
    site.files["/group.zip"] = zipped(files)
    enter(
        monkeypatch,
        *(changed(published, name=f"group/{name}", archive="group", archive_md5=None) for name in ("a", "b")),
    )
    assert len(read_beir(download("group/a")).corpus) == 3
    assert len(read_beir(download("group/b")).corpus) == 3
    assert len(site.asked) == 1


def test_resume_within_one_call_after_each_cut(site: Any, tmp_path: Path) -> None:
    site.files["/f"] = CONTENT
    # More cuts than attempts without progress are allowed.
    site.cut_after = [10_000] * 8
    fetch(f"{site.url}/f", tmp_path / "f", md5=hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [wanted for _, _, wanted in site.asked] == [None, *(f"bytes={n}0000-" for n in range(1, 9))]


def test_resume_in_a_later_call(site: Any, tmp_path: Path) -> None:
    site.files["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(CONTENT[:70_000])
    fetch(f"{site.url}/f", tmp_path / "f", sha256=hashlib.sha256(CONTENT).hexdigest())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [wanted for _, _, wanted in site.asked] == ["bytes=70000-"]
    assert not (tmp_path / "f.part").exists()


def test_a_server_without_ranges_starts_over(site: Any, tmp_path: Path) -> None:
    site.files["/f"], site.ranges = CONTENT, False
    (tmp_path / "f.part").write_bytes(b"x" * 70_000)
    fetch(f"{site.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_whole_part_is_taken_as_it_is(site: Any, tmp_path: Path) -> None:
    """As after a crash between the last byte and the renaming."""
    site.files["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(CONTENT)
    fetch(f"{site.url}/f", tmp_path / "f", md5=hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_part_longer_than_the_file_is_thrown_away(site: Any, tmp_path: Path) -> None:
    site.files["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    fetch(f"{site.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(site: Any, tmp_path: Path) -> None:
    site.files["/f"], site.statuses = CONTENT, [503, 429]
    fetch(f"{site.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_that_stays_away(site: Any, tmp_path: Path) -> None:
    site.files["/f"], site.statuses = CONTENT, [500] * 20
    with pytest.raises(DownloadError, match=r"/f: 5 attempts failed, the last one with: HTTP Error 500"):
        fetch(f"{site.url}/f", tmp_path / "f")
    assert len(site.asked) == 5


def test_bad_checksum(published: CatalogEntry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(monkeypatch, changed(published, archive_md5="0" * 32))
    with pytest.raises(DownloadError, match=rf"the md5 checksum is {published.archive_md5}, expected 0{{32}}; "):
        download("tiny")
    assert in_cache(home) == []
    assert not list((home / "downloads").glob("*.zip*"))


def test_wrong_counts(published: CatalogEntry, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_beir(folder)
    other = type(counts)(4, counts.queries, counts.splits)
    enter(monkeypatch, changed(published, counts=other))
    with pytest.raises(
        DownloadError,
        match=r"tiny.zip is not tiny as published: found 3 documents, 3 queries, test 1 queries and 2 judgments, "
        r"train 1 queries and 2 judgments; expected 4 documents, .*; nothing was kept",
    ):
        download("tiny")
    assert in_cache(home) == []
    assert not list((home / "downloads").glob("*.zip*"))


def test_not_there(published: CatalogEntry, site: Any, home: Path) -> None:
    del site.files["/tiny.zip"]
    with pytest.raises(DownloadError, match=r"/tiny.zip: the server answered 404 Not Found; check the address"):
        download("tiny")
    assert len(site.asked) == 1, "a wrong address is not asked again"
    assert in_cache(home) == []


@pytest.mark.parametrize("name", ["tiny", "mteb/tiny"])
def test_offline(name: str, published: CatalogEntry, site: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match=f"{name} is not on this machine and HF_HUB_OFFLINE forbids downloads"):
        download(name)
    assert site.asked == []


def test_what_is_in_the_cache_is_used_offline(
    published: CatalogEntry, home: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_beir(tiny, home / "datasets" / "tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download("tiny") == home / "datasets" / "tiny"


def test_a_set_that_is_not_public(home: Path) -> None:
    with pytest.raises(DownloadError, match=r"bioasq \(BioASQ\) is not public; obtain it from its owner"):
        download("bioasq")


def test_an_unknown_set(home: Path) -> None:
    with pytest.raises(DataError, match="did you mean scifact"):
        download("scifac")
    with pytest.raises(DataError, match="there is no BEIR dataset"):
        download("mteb/../../escape")


def test_a_full_disk(published: CatalogEntry, site: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(DownloadError, match=r"0.0 GB are needed and 0.0 GB are free; free some space or set RANKSAGA"):
        download("tiny")
    assert in_cache(home) == []


def test_no_space_to_unpack_keeps_the_archive(
    published: CatalogEntry, site: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = {"downloads": 10**9}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, free.get(Path(folder).name, 10)))
    with pytest.raises(DownloadError, match="free some space"):
        download("tiny")
    monkeypatch.undo()
    monkeypatch.setenv("RANKSAGA_HOME", str(home))
    monkeypatch.setenv("RANKSAGA_BEIR_URL", site.url)
    enter(monkeypatch, published)
    assert len(read_beir(download("tiny")).corpus) == 3
    assert [wanted for _, _, wanted in site.asked] == [None, f"bytes={published.archive_bytes}-"]


def test_two_callers_at_once_download_once(published: CatalogEntry, site: Any, home: Path) -> None:
    threads = [threading.Thread(target=download, args=("tiny",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_cache(home) == ["tiny"]
    assert len(site.asked) == 1


@pytest.mark.parametrize("name", ["../evil.txt", "top/../../evil.txt", "/evil.txt", "top\\..\\evil.txt", "C:/evil.txt"])
def test_entries_that_point_outside(name: str, tmp_path: Path) -> None:
    content = zipped({"top/corpus.jsonl": b"{}", name.replace("\\", "~"): b"evil"})
    # zipfile itself replaces a backslash when it writes, so it is put back into the bytes.
    (tmp_path / "a.zip").write_bytes(content.replace(b"top~..~evil", b"top\\..\\evil"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match="points outside; nothing was unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out", "top")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "out"]


def test_links_are_refused(tmp_path: Path) -> None:
    content = zipped({"top/corpus.jsonl": b"/etc/passwd"}, external_attr=0o120777 << 16)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DownloadError, match="points outside"):
        unpack(tmp_path / "a.zip", tmp_path, "top")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"top/corpus.jsonl": bytes(30 << 20)}))
    with pytest.raises(DownloadError, match=f"unpacks to {30 << 20} bytes, too many for its size"):
        unpack(tmp_path / "a.zip", tmp_path, "top")


def test_a_zip_that_understates_its_size(tmp_path: Path) -> None:
    content = zipped({"top/corpus.jsonl": bytes(50_000)})
    (tmp_path / "a.zip").write_bytes(content.replace((50_000).to_bytes(4, "little"), (500).to_bytes(4, "little")))
    with pytest.raises(DownloadError, match="not a sound zip"):
        unpack(tmp_path / "a.zip", tmp_path, "top")
    assert (tmp_path / "corpus.jsonl").stat().st_size <= 500


def test_not_a_zip(published: CatalogEntry, site: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/tiny.zip"] = b"<html>Sign in to the hotel's network</html>"
    enter(monkeypatch, changed(published, archive_md5=None))
    with pytest.raises(DownloadError, match=r"tiny.zip: not a sound zip \(File is not a zip file\)"):
        download("tiny")
    assert in_cache(home) == []
