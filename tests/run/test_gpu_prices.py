"""Prices and peaks are data, with a date and a way to override them."""

from __future__ import annotations

import pytest

from ranksaga.errors import UsageError
from ranksaga.run.gpu_prices import find_gpu, gpus, known_price, parse_price, price_note, price_on


def test_an_hour_is_the_card_with_its_cores_and_memory() -> None:
    # 3600 x (0.001097 + 4 x 0.0000131 + 16 x 0.00000222)
    assert find_gpu("h100").usd_per_hour == pytest.approx(3.9492 + 0.18864 + 0.127872)
    assert find_gpu("h100").half == 989e12
    assert "2026-06-27" in price_note()


def test_a_card_is_as_fast_as_the_precision_that_runs_on_it() -> None:
    t4, a10 = find_gpu("T4"), find_gpu("A10")
    assert [card.precision("auto") for card in (t4, a10)] == ["fp16", "bf16"]
    assert [t4.peak(kind) for kind in ("fp16", "bf16", "fp32")] == [65e12, 8.1e12, 8.1e12]
    assert [a10.peak(kind) for kind in ("fp16", "bf16", "fp32")] == [70e12, 70e12, 31.5e12]


def test_names_are_those_of_modal() -> None:
    assert find_gpu("A10") is gpus()["A10G"]
    assert find_gpu("A100") is gpus()["A100-40GB"]


@pytest.mark.parametrize(("wrong", "near"), [("H10O", "H100"), ("a10gg", "A10G"), ("L40", "L40S")])
def test_an_unknown_card_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"--gpu {wrong}: .*did you mean {near}"):
        find_gpu(wrong)


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf", ""])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--price: found .*, expected US dollars an hour"):
        parse_price(text, "--price")


def test_the_environment_gives_this_machine_a_price_and_wins_over_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKSAGA_PRICE", raising=False)
    assert known_price() is None
    assert price_on("A10") == gpus()["A10G"].usd_per_hour
    assert price_on("RTX9000") is None
    monkeypatch.setenv("RANKSAGA_PRICE", "0.25")
    assert known_price() == price_on("A10G") == 0.25
    monkeypatch.setenv("RANKSAGA_PRICE", "much")
    with pytest.raises(UsageError, match="RANKSAGA_PRICE"):
        known_price()
