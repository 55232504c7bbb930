from __future__ import annotations

import re
from pathlib import Path

import pytest

from ranksaga.data.beir import Counts, count_beir
from ranksaga.data.catalog import catalog, catalog_entry
from ranksaga.errors import DataError

# Judged queries of the split that BEIR scores (Thakur et al. 2021, table 1); dev for MS MARCO.
PAPER = {
    "msmarco": 6980,
    "trec-covid": 50,
    "nfcorpus": 323,
    "nq": 3452,
    "hotpotqa": 7405,
    "fiqa": 648,
    "arguana": 1406,
    "webis-touche2020": 49,
    "quora": 10000,
    "dbpedia-entity": 400,
    "scidocs": 1000,
    "fever": 6666,
    "climate-fever": 1535,
    "scifact": 300,
}


def test_the_catalogue_has_all_of_beir() -> None:
    forums = [name for name in catalog() if name.startswith("cqadupstack/")]
    private = {name for name, entry in catalog().items() if not entry.public}
    assert len(forums) == 12
    assert private == {"bioasq", "signal1m", "trec-news", "robust04"}
    assert set(catalog()) == {*PAPER, *forums, *private}


def test_counts_agree_with_the_paper() -> None:
    for name, queries in PAPER.items():
        counts = catalog()[name].counts
        assert counts is not None
        assert counts.splits["dev" if name == "msmarco" else "test"][0] == queries
    forums = [entry.counts for name, entry in catalog().items() if name.startswith("cqadupstack/")]
    assert sum(counts.splits["test"][0] for counts in forums if counts) == 13145
    assert sum(counts.documents for counts in forums if counts) == 457199


def test_counts_fit_together() -> None:
    for entry in catalog().values():
        if entry.counts is not None:
            # In BEIR's folders every query is judged, and in one split only.
            assert sum(queries for queries, _ in entry.counts.splits.values()) == entry.counts.queries
            assert all(0 < queries <= judgments for queries, judgments in entry.counts.splits.values())


def test_public_sets_say_where_they_are() -> None:
    checksums: dict[str, str] = {}
    for entry in catalog().values():
        if entry.public:
            assert entry.archive
            assert entry.archive_bytes
            assert re.fullmatch("[0-9a-f]{32}", entry.archive_md5 or "")
            assert entry.hub
            checksums[entry.archive] = entry.archive_md5 or ""
        else:
            assert (entry.counts, entry.archive_bytes, entry.archive_md5, entry.hub) == (None, None, None, ())
    assert len(set(checksums.values())) == 15


def test_one_entry() -> None:
    entry = catalog_entry("scifact")
    assert entry.counts == Counts(5183, 1109, {"train": (809, 919), "test": (300, 339)})
    assert entry.archive_md5 == "5f7d1de60b170fc8027bb7898e2efca1"
    assert entry.hub == ("BeIR/scifact", "mteb/scifact")


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(DataError, match="there is no BEIR dataset 'SciFacts'; did you mean scifact"):
        catalog_entry("SciFacts")
    with pytest.raises(DataError, match="BEIR has: msmarco, trec-covid"):
        catalog_entry("xyzzy")
    with pytest.raises(DataError, match="cqadupstack is a group of 12 datasets; name one of them: cqadupstack/android"):
        catalog_entry("cqadupstack")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["scifact", "nfcorpus"])
def test_real_copies_have_the_published_counts(name: str, shared_datasets: Path) -> None:
    assert count_beir(shared_datasets / name) == catalog_entry(name).counts
