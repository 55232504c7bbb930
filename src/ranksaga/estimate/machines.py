"""How fast a machine does counted work: this one as measured, a GPU that is not here as its data sheet says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranksaga.estimate.probe import Pace, Range, Steps
from ranksaga.estimate.workload import Load
from ranksaga.run.gpu_prices import Gpu

__all__ = ["HOST_ELSEWHERE", "UTILISATION", "RentedGpu", "ThisMachine"]

UTILISATION = Range(0.15, 0.45)
HOST_ELSEWHERE = Range(0.5, 2.0)


@dataclass(frozen=True)
class ThisMachine:
    """This machine, measured: seconds a token read, a FLOP of search, and a token of training by name."""

    encode: Pace
    product: Pace
    train: Mapping[str, Pace]

    def seconds(self, low: Load, high: Load) -> Range:
        """Of encoding and searching."""
        read, search = self.encode.seconds, self.product.seconds
        return Range(
            low.tokens * read.low + low.products * search.low + low.host,
            high.tokens * read.high + high.products * search.high + high.host,
        )

    def training(self, name: str, steps: Steps) -> Range:
        """Of all steps of a training, and of what comes before."""
        pace = self.train[name].seconds
        own = Range(steps.total * steps.low.tokens * pace.low, steps.total * steps.high.tokens * pace.high)
        return own + self.seconds(steps.setup_low, steps.setup_high)


@dataclass(frozen=True)
class RentedGpu:
    """A GPU, derived. ``tokenise``: seconds that the processor here takes for a token; ``precision``: the recipe's."""

    gpu: Gpu
    tokenise: float
    precision: str = "auto"

    @property
    def peak(self) -> float:
        """FLOP/s of the model's matrix products."""
        return self.gpu.peak(self.gpu.precision(self.precision))

    def seconds(self, low: Load, high: Load) -> Range:
        """Of encoding and searching."""
        return Range(
            self._device(low, UTILISATION.high) + HOST_ELSEWHERE.low * self._host(low),
            self._device(high, UTILISATION.low) + HOST_ELSEWHERE.high * self._host(high),
        )

    def training(self, name: str, steps: Steps) -> Range:
        """Of all steps of a training, and of what comes before."""
        # A text is tokenised once in a training, however many steps it is in: what a step's host time already holds.
        own = [one.__class__(0.0, one.forward, one.products, one.host) for one in (steps.low, steps.high)]
        return self.seconds(own[0].times(steps.total), own[1].times(steps.total)) + self.seconds(
            steps.setup_low, steps.setup_high
        )

    def _device(self, load: Load, utilisation: float) -> float:
        return load.forward / (self.peak * utilisation) + load.products / (self.gpu.single * utilisation)

    def _host(self, load: Load) -> float:
        return load.host + load.tokens * self.tokenise
