"""PyTorch modules of the recurrent layers: a loop over the time steps, as in Caffe's unrolled nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from prototxt_gen.ir import Shape


def lstm_cell(gates: Tensor, cell: Tensor, mark: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the hidden state and the cell state after one step.

    The gates are ordered input, forget, output, new value. Source: src/caffe/layers/lstm_unit_layer.cpp
    LSTMUnitLayer::Forward_cpu.
    """
    i, f, o, new = gates.chunk(4, dim=-1)
    forget = f.sigmoid() if mark is None else mark * f.sigmoid()
    cell = forget * cell + i.sigmoid() * new.tanh()
    return o.sigmoid() * cell.tanh(), cell


class Recurrent(nn.Module):
    """Base class of both modules. It keeps its state from batch to batch, separately for training and test."""

    letter = ""
    states = 0

    def __init__(self, shapes: Mapping[str, Shape], static: bool, exposed: bool, marked: bool) -> None:
        super().__init__()
        for role, shape in shapes.items():
            self.register_parameter(role, nn.Parameter(torch.zeros(shape)))
        self.static, self.exposed, self.marked = static, exposed, marked
        self.persistent_state: dict[bool, tuple[Tensor, ...]] = {}

    def reset(self) -> None:
        """Set the state that the next batch starts with to zeros."""
        self.persistent_state.clear()

    def blob(self, role: str) -> Tensor:
        """Return the tensor of a role."""
        tensor: Tensor = getattr(self, role)
        return tensor

    def forward(self, x: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        inputs = functional.linear(x.flatten(2), self.blob(f"W_x{self.letter}"), self.blob(f"b_{self.letter}"))
        if self.static:
            inputs = inputs + functional.linear(others[1].flatten(1), self.blob(f"W_x{self.letter}_static"))
        state = self.start(inputs, others[1 + self.static :])
        hidden = []
        for t, step_inputs in enumerate(inputs.unbind(0)):
            state = self.step(step_inputs, others[0][t].unsqueeze(1) if self.marked else None, state)
            hidden.append(state[0])
        top = self.output(torch.stack(hidden))
        return (top, *self.finish(state)) if self.exposed else self.keep(top, state)

    def start(self, inputs: Tensor, state_bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the state before the first step. No gradient flows into it, as in Caffe."""
        if self.exposed:
            return tuple(state[0].detach() for state in state_bottoms)
        zero = inputs.new_zeros(inputs.shape[1], self.blob(f"W_h{self.letter}").shape[1])
        stored = self.persistent_state.get(self.training, ())
        enough = stored and len(stored[0]) >= len(zero)
        return tuple(each[: len(zero)] for each in stored) if enough else (zero,) * self.states

    def keep(self, top: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Store the last state for the next batch and return the top; streams that this batch lacks keep theirs."""
        if self.marked:
            older = self.persistent_state.get(self.training, ()) or state
            joined = (torch.cat([new, old[len(new) :]]) for new, old in zip(state, older, strict=True))
            self.persistent_state[self.training] = tuple(each.detach() for each in joined)
        return top

    def finish(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the last state as tops. No gradient flows back from them, as in Caffe."""
        return tuple(each.detach().unsqueeze(0) for each in state)

    def hidden_inputs(self, inputs: Tensor, mark: Tensor | None, hidden: Tensor) -> Tensor:
        """Return the inputs of one step plus the contribution of the hidden state, which `mark` 0 resets."""
        kept = hidden if mark is None else mark * hidden
        return inputs + functional.linear(kept, self.blob(f"W_h{self.letter}"))

    def step(self, inputs: Tensor, mark: Tensor | None, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state after one time step."""
        raise NotImplementedError

    def output(self, hidden: Tensor) -> Tensor:
        """Return the top, state_bottoms the hidden states of all steps."""
        return hidden


class LSTM(Recurrent):
    """Caffe's LSTM; its state is the hidden state and the cell state."""

    letter, states = "c", 2

    def step(self, inputs: Tensor, mark: Tensor | None, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cell = state
        return lstm_cell(self.hidden_inputs(inputs, mark, hidden), cell, mark)


class RNN(Recurrent):
    """Caffe's RNN; its state is the hidden state."""

    letter, states = "h", 1

    def step(self, inputs: Tensor, mark: Tensor | None, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.hidden_inputs(inputs, mark, state[0]).tanh(),)

    def output(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.blob("W_ho"), self.blob("b_o")).tanh()


def recurrent_module(
    letter: str, shapes: Mapping[str, Shape], static: bool = False, exposed: bool = False, marked: bool = True
) -> nn.Module:
    """Return an RNN (letter "h") or an LSTM (letter "c") with parameters of these shapes, zero until they are loaded.

    `marked`: the second bottom has a 0 where a sequence begins. Otherwise every batch is one sequence.
    """
    kind = {"c": LSTM, "h": RNN}[letter]
    return kind(shapes, static, exposed, marked)
