"""GPUs that can be rented: list prices and peak rates, as data with a date (``gpus.json``).

Nothing here was measured. What a model reaches of a card's peak is a range that whoever computes with it states.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ranksaga.errors import UsageError
from ranksaga.files import read_json

__all__ = ["PRICE_VARIABLE", "Gpu", "find_gpu", "gpus", "known_price", "parse_price", "price_note", "price_on"]

PRICE_VARIABLE = "RANKSAGA_PRICE"
ALIASES = {"A10": "A10G", "A100": "A100-40GB", "H100!": "H100"}  # as Modal reads them


@dataclass(frozen=True)
class Gpu:
    """A card, and the machine that it is rented with.

    Attributes:
        name: as Modal calls it.
        usd_per_hour: of the card with the cores and the memory that a run on Modal asks for.
        half: peak FLOP/s of dense 16-bit matrix products.
        single: peak FLOP/s in fp32.
        bandwidth: bytes of its memory that it reads in a second.
        memory: bytes.
        confirmed: whether the price was read somewhere with a date.
        bf16: whether its tensor cores know bf16; those of Turing (T4) know fp16 alone.
    """

    name: str
    usd_per_hour: float
    half: float
    single: float
    bandwidth: float
    memory: float
    confirmed: bool
    bf16: bool = True

    def precision(self, wanted: str) -> str:
        """What ``auto`` becomes on this card, as :func:`ranksaga.encode.precision.choose_precision` decides there."""
        return wanted if wanted != "auto" else "bf16" if self.bf16 else "fp16"

    def peak(self, precision: str) -> float:
        """FLOP/s of a transformer's matrix products: bf16 that the tensor cores do not know goes as fast as fp32."""
        return self.single if precision == "fp32" or (precision == "bf16" and not self.bf16) else self.half


@cache
def gpus() -> Mapping[str, Gpu]:
    """All known cards by name, cheapest first."""
    stored = read_json(Path(__file__).with_name("gpus.json"))
    prices = stored["prices"]
    beside = prices["cores"] * prices["usd_per_core_second"] + prices["gib"] * prices["usd_per_gib_second"]
    return {
        one["name"]: Gpu(
            one["name"],
            3600 * (one["usd_per_second"] + beside),
            one["half"] * 1e12,
            one["single"] * 1e12,
            one["bandwidth"] * 1e9,
            one["gib"] * 2.0**30,
            one["confirmed"],
            one.get("bf16", True),
        )
        for one in stored["gpus"]
    }


def find_gpu(name: str) -> Gpu:
    """The card of this name.

    Raises:
        UsageError: none has it; the message has the nearest.
    """
    wanted = ALIASES.get(name.upper(), name.upper())
    if wanted in gpus():
        return gpus()[wanted]
    near = difflib.get_close_matches(wanted, gpus(), 1, 0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"--gpu {name}: there is no such GPU in the list{hint} (known: {', '.join(gpus())})")


def price_note() -> str:
    """Where the prices are from, and of when."""
    prices = read_json(Path(__file__).with_name("gpus.json"))["prices"]
    return (
        f"{prices['what']}, with {prices['cores']} cores and {prices['gib']} GiB, as of {prices['date']} "
        f"({prices['url']}, second-hand); --price USD_PER_HOUR overrides"
    )


def parse_price(text: str, source: str) -> float:
    """US dollars an hour.

    Raises:
        UsageError: it is no such number.
    """
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise UsageError(f"{source}: found {text!r}, expected US dollars an hour, as in 1.10")
    return price


def known_price() -> float | None:
    """What an hour of this machine costs (``RANKSAGA_PRICE``, which a run on Modal sets by itself); none: unknown.

    Raises:
        UsageError: the variable holds no price.
    """
    text = os.environ.get(PRICE_VARIABLE, "").strip()
    return parse_price(text, f"environment variable {PRICE_VARIABLE}") if text else None


def price_on(name: str) -> float | None:
    """What an hour on a rented card costs: ``RANKSAGA_PRICE`` where it is set, else its list price; none: unknown."""
    given = known_price()
    if given is not None:
        return given
    card = gpus().get(ALIASES.get(name.upper(), name.upper()))
    return None if card is None else card.usd_per_hour
