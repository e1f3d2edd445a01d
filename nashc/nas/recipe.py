"""How networks of a space are trained: values, said in the space's file or on the command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """epochs over all images; `rate` is the highest learning rate, `adder_rate` and `shift_rate` what multiplies it for
    weights of those layers; `warm_up` the share of the steps in which it rises; `distil` the share of the teacher's
    soft targets, at `temperature`, in the loss; `as_conv` the first share of the steps, in which adder layers are
    convolutions, and `quantised` the last one, in which they compute with bytes."""

    epochs: int = 30
    batch: int = 128
    rate: float = 0.1
    adder_rate: float = 3.0
    shift_rate: float = 1.0
    weight_decay: float = 5e-4
    warm_up: float = 0.1
    label_smoothing: float = 0.1
    augment: bool = True
    distil: float = 0.0
    temperature: float = 4.0
    as_conv: float = 0.5
    quantised: float = 0.2
    seed: int = 0

    def problems(self) -> list[str]:
        """What is wrong with the values."""
        limits = {
            "epochs": (1, 10**6), "batch": (2, 10**6), "rate": (1e-9, 1e3), "adder_rate": (0, 1e3),
            "shift_rate": (0, 1e3), "weight_decay": (0, 1), "warm_up": (0, 1), "label_smoothing": (0, 1),
            "distil": (0, 1), "temperature": (1e-3, 1e3), "as_conv": (0, 1), "quantised": (0, 1),
            "seed": (0, 2**32 - 1),
        }  # fmt: skip
        found = [
            f"{name}={getattr(self, name)}: must be {low:g} to {high:g}"
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.as_conv + self.quantised > 1:
            found.append(f"as_conv={self.as_conv} and quantised={self.quantised}: together at most 1")
        return found
