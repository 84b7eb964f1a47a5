"""Where a network decides: what it decides by, and the decision. So that two runs can be compared on equal decisions.

Within rounding of a threshold the one run decides so and the other so, and everything behind it differs: a query sees
one token of the image more, a prompt matches another query. That is chance and no fault. So a comparison imposes the
decisions of the one run on the other, and compares what was decided by like any output: a decision that differs is
excused exactly if its margin is within the tolerance.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from medimageparse.errors import ExportError


class Decision(nn.Module):
    """A part of a network that decides. Called with what the evidence is made of and what else decides (noise)."""

    def evidence(self, *inputs: Tensor | int) -> Tensor:
        """What is compared with a threshold, or of which the largest is taken, float32."""
        raise NotImplementedError

    def decide(self, evidence: Tensor, *others: Tensor) -> Tensor:
        """The decision, bool or int64."""
        raise NotImplementedError

    def forward(self, inputs: Sequence[Tensor | int], *others: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence and decision."""
        evidence = self.evidence(*inputs)
        return evidence, self.decide(evidence, *others)


def decisions_of(module: nn.Module) -> list[Decision]:
    return [part for part in module.modules() if isinstance(part, Decision)]


@contextmanager
def telling(module: nn.Module) -> Iterator[None]:
    """While it is open the module returns evidence and decision of every call behind its outputs, in a tuple."""
    seen: list[Tensor] = []

    def tell(_module: nn.Module, _inputs: tuple, outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        told = *((outputs,) if isinstance(outputs, Tensor) else outputs), *seen
        seen.clear()
        return told

    handles = [part.register_forward_hook(lambda *call: seen.extend(call[2])) for part in decisions_of(module)]
    handles.append(module.register_forward_hook(tell))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def imposing(module: nn.Module, taken: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Runs of the module while it is open decide as the other run did; gives the module's own evidence.

    taken: evidence and decision of every call of the other run. ExportError where its decision does not follow
    from its evidence by the module's rule.
    """
    seen: list[np.ndarray] = []

    def impose(part: Decision, inputs: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        evidence, decision = (torch.from_numpy(array) for array in taken[len(seen)])
        if not torch.equal(part.decide(evidence, *inputs[1:]), decision):
            raise ExportError(f"decision {len(seen)} does not follow from what it is decided by")
        seen.append(output[0].numpy())
        return output[0], decision

    handles = [part.register_forward_hook(impose) for part in decisions_of(module)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
