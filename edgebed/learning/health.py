"""Health of actor-critic training: what shows that an actor saturates or stops, and what to lower then.

With bounded outputs (tanh) and a critic that learns faster than its actor, the actor's pre-activations drift out to
where tanh is flat; its gradient vanishes, and its weights stop for good while the critic goes on ("Asymmetric gradient
flow and learning-rate sensitivity in client-master multi-agent actor-critic architectures", whose detector and limits
these are). All of it is measured for every training seed of a batch at once, ``[S]``.

Metrics, all over the time since the last report; ``g`` are the gradients of one layer (weight and bias), ``x`` the
actor's outputs before tanh, ``w`` all parameters of a network:

| name | formula |
|---|---|
| ``health/actor_gradient_<layer>`` | mean over updates of the norm of ``g``; so for the critic |
| ``health/gradient_ratio`` | mean norm of the actor's whole gradient / that of the critic's |
| ``health/saturated_share`` | share of the ``x`` with ``abs(tanh(x)) > 0.9`` |
| ``health/pre_activation_mean`` | mean of ``x`` |
| ``health/pre_activation_spread`` | standard deviation of ``x`` |
| ``health/actor_change`` | largest ``abs(w - w at the last report)``; so for the critic |
| ``health/actor_stopped`` | 1 where that is below 1e-8 although there were updates, else 0; so for the critic |

::

    health = Health(actor=actor.tensors, critic=critic.tensors, seeds=task.seeds)
    health.gradients(actor=actor_gradients, critic=critic_gradients)    # after an update, or some of them
    health.outputs(actor(observations))                                 # before tanh
    metrics |= health.report(steps)                                     # warns, too
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from edgebed.learning.base import Metrics, State

_log = logging.getLogger(__name__)

_Complaint = tuple[str, Tensor, Callable[[int], str]]
"""Name of what is wrong, which seeds it is wrong with ``[S]``, and what is to be said of one."""

SATURATED = 0.9
"""An output counts as saturated when its tanh is beyond this."""

STOPPED_CHANGE = 1e-8
"""A network has stopped when no parameter changes by so much."""

MOST_SATURATED = 0.9
LEAST_RATIO = 1e-8
MOST_GRADIENT = 1e4
"""Limits of the warnings: share of saturated outputs, actor's gradient against the critic's, norm of a gradient."""

_LOWER_ACTOR = (
    "lower the actor's learning rate (a tenth of the critic's, or less), scale the rewards down, or penalise large "
    "outputs"
)


class Health:
    """Watches an actor and its critic.

    Args:
        actor: parameters ``[S, ...]``, weight and bias of each layer in turn; the tensors that are trained.
        critic: likewise.
        seeds: names of the ``S`` members, for warnings.
        has_tanh: whether the actor's outputs go through tanh; without it nothing saturates.
    """

    def __init__(
        self, actor: Sequence[Tensor], critic: Sequence[Tensor], seeds: Sequence[int], *, has_tanh: bool = True
    ) -> None:
        self._networks = {"actor": list(actor), "critic": list(critic)}
        self._seeds = list(seeds)
        self._has_tanh = has_tanh
        self._said: set[tuple[int, str]] = set()
        self._before = {name: _copies(tensors) for name, tensors in self._networks.items()}
        self._clear()

    def _clear(self) -> None:
        self._norms: dict[str, list[Tensor]] = {"actor": [], "critic": []}
        self._updates = {"actor": 0, "critic": 0}
        self._counted = 0
        zeros = torch.zeros(len(self._seeds), dtype=torch.float64)
        self._saturated, self._sum, self._square_sum = zeros, zeros.clone(), zeros.clone()

    @torch.no_grad()
    def gradients(self, *, actor: Sequence[Tensor] = (), critic: Sequence[Tensor] = ()) -> None:
        """Note the gradients of an update, ``[S, ...]`` each, in the order of the parameters; none: not updated."""
        for name, given in (("actor", actor), ("critic", critic)):
            if not given:
                continue
            self._updates[name] += 1
            norms = torch.stack([_layer_norm(given[first : first + 2]) for first in range(0, len(given), 2)])
            self._norms[name] = [norms] if not self._norms[name] else [self._norms[name][0] + norms]

    @torch.no_grad()
    def outputs(self, pre_activations: Tensor) -> None:
        """Note the actor's outputs before tanh, ``[S, ...]``, of a batch."""
        x = pre_activations.detach().flatten(1).double()
        self._counted += x.shape[1]
        self._saturated = self._saturated + (x.tanh().abs() > SATURATED).sum(1)
        self._sum = self._sum + x.sum(1)
        self._square_sum = self._square_sum + x.square().sum(1)

    @torch.no_grad()
    def report(self, steps: int) -> Metrics:
        """What was seen since the last report; begins anew.

        Args:
            steps: environment steps so far, for warnings.
        """
        found: dict[str, Tensor] = {}
        for name in self._networks:
            found |= self._network_metrics(name)
        if self._updates["actor"] and self._updates["critic"]:
            totals = {name: self._total_norm(name) for name in self._networks}
            found["gradient_ratio"] = totals["actor"] / totals["critic"].clamp_min(torch.finfo(torch.float64).tiny)
        if self._counted:
            found |= self._output_metrics()
        self._warn(found, steps)
        self._clear()
        return {f"health/{name}": values.double().tolist() for name, values in found.items()}

    def _network_metrics(self, name: str) -> dict[str, Tensor]:
        change = _largest_change(self._networks[name], self._before[name])
        self._before[name] = _copies(self._networks[name])
        if not self._updates[name]:
            return {}
        layers = self._norms[name][0] / self._updates[name]
        found = {f"{name}_gradient_{index}": layers[index] for index in range(len(layers))}
        return found | {f"{name}_change": change, f"{name}_stopped": (change < STOPPED_CHANGE).double()}

    def _total_norm(self, name: str) -> Tensor:
        return (self._norms[name][0] / self._updates[name]).double().square().sum(0).sqrt()

    def _output_metrics(self) -> dict[str, Tensor]:
        mean = self._sum / self._counted
        variance = (self._square_sum / self._counted - mean.square()).clamp_min(0.0)
        found = {"pre_activation_mean": mean, "pre_activation_spread": variance.sqrt()}
        if self._has_tanh:
            found["saturated_share"] = self._saturated / self._counted
        return found

    def _warn(self, found: dict[str, Tensor], steps: int) -> None:
        """Say once of each seed what is wrong with it; again when it has been well in between."""
        for kind, is_wrong, text in self._complaints(found):
            for index, seed in enumerate(self._seeds):
                if not bool(is_wrong[index]):
                    self._said.discard((index, kind))
                elif (index, kind) not in self._said:
                    self._said.add((index, kind))
                    _log.warning("seed %d, step %d: %s", seed, steps, text(index))

    def _complaints(self, found: dict[str, Tensor]) -> list[_Complaint]:
        complaints: list[_Complaint] = []
        saturated = found.get("saturated_share")

        def shares(index: int) -> str:
            return "" if saturated is None else f" ({float(saturated[index]):.0%} of its outputs are saturated)"

        if (stopped := found.get("actor_stopped")) is not None:
            complaints.append(
                ("actor_stopped", stopped > 0, lambda i: f"the actor has stopped{shares(i)}: {_LOWER_ACTOR}")
            )
        if (stopped := found.get("critic_stopped")) is not None:
            complaints.append(
                ("critic_stopped", stopped > 0, lambda i: "the critic has stopped: lower its learning rate")
            )
        if saturated is not None:
            complaints.append(
                ("saturated", saturated > MOST_SATURATED, lambda i: f"the actor saturates{shares(i)}: {_LOWER_ACTOR}")
            )
        if (ratio := found.get("gradient_ratio")) is not None:
            complaints.append(
                (
                    "ratio",
                    ratio < LEAST_RATIO,
                    lambda i: f"the actor's gradient is {float(ratio[i]):.1e} of the critic's: {_LOWER_ACTOR}",
                )
            )
        return complaints + [self._exploding(name) for name in self._networks if self._updates[name]]

    def _exploding(self, name: str) -> _Complaint:
        norm = self._total_norm(name)
        return (
            f"{name}_gradient",
            norm > MOST_GRADIENT,
            lambda i: (
                f"the {name}'s gradient has the norm {float(norm[i]):.1e}: lower its learning rate, scale the rewards "
                "down, or limit the norm"
            ),
        )

    def state(self) -> State:
        """All that the next report needs, under names that begin with ``health_``."""
        arrays: State = {
            "health_counts": np.array([self._updates["actor"], self._updates["critic"], self._counted]),
            "health_sums": torch.stack([self._saturated, self._sum, self._square_sum]).numpy(),
        }
        for name, tensors in self._before.items():
            arrays |= {f"health_before_{name}_{index}": one.numpy() for index, one in enumerate(tensors)}
            if self._norms[name]:
                arrays[f"health_norms_{name}"] = self._norms[name][0].numpy()
        return arrays

    def load_state(self, state: State) -> None:
        """Go on from there; warnings that were given may be given again."""
        self._clear()
        counts = [int(count) for count in state["health_counts"]]
        self._updates, self._counted = {"actor": counts[0], "critic": counts[1]}, counts[2]
        self._saturated, self._sum, self._square_sum = torch.from_numpy(state["health_sums"].copy()).unbind()
        for name, tensors in self._networks.items():
            stored = (state[f"health_before_{name}_{index}"] for index in range(len(tensors)))
            self._before[name] = [torch.from_numpy(array.copy()) for array in stored]
            if f"health_norms_{name}" in state:
                self._norms[name] = [torch.from_numpy(state[f"health_norms_{name}"].copy())]


def single(module: torch.nn.Module) -> list[Tensor]:
    """Parameters of an ordinary module as those of an ensemble of one; views, so that they change with it."""
    return [one.detach()[None] for one in module.parameters()]


def single_gradients(module: torch.nn.Module) -> list[Tensor]:
    """The gradients that an ordinary module has just now, as those of an ensemble of one; zeros where it has none."""
    given = ((one, one.grad) for one in module.parameters())
    return [(torch.zeros_like(one) if grad is None else grad)[None] for one, grad in given]


def _layer_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Norm over all tensors of a layer, ``[S]``."""
    return torch.stack([one.flatten(1).double().square().sum(1) for one in tensors]).sum(0).sqrt()


def _largest_change(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    changes = [(one.detach() - other).abs().flatten(1).amax(1) for one, other in zip(now, before, strict=True)]
    return torch.stack(changes).amax(0)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.detach().clone() for one in tensors]
