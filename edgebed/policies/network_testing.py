"""Random networks for observations: what tests and benchmarks of learned policies decide with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from edgebed.policies.forward import Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.hosts_features import action_names, device_columns, shared_columns
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_file import HOSTS, JOINT, PolicyFile
from edgebed.types import Feature, ObservationSpec

_SIZES = {"B": 1e5, "cycle": 1e8, "cycle/s": 1e9, "bit/s": 1e7}


def random_network(sizes: Sequence[int], seed: int = 0, activation: str = "relu", count: int | None = None) -> Network:
    """A network with the given layers' sizes, inputs first; ``count`` devices with weights of their own."""
    rng = np.random.default_rng(seed)
    ahead = () if count is None else (count,)
    layers = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = rng.normal(0, 1 / np.sqrt(inputs), (*ahead, inputs, outputs))
        bias = rng.normal(0, 0.1, (*ahead, outputs))
        layers.append(Layer.of(weight, bias, activation if index < len(sizes) - 2 else "identity"))
    return Network(layers)


def random_hosts_policy(
    spec: ObservationSpec,
    *,
    scope: str = JOINT,
    hidden: Sequence[int] = (32, 32),
    numbers: tuple[Feature, ...] = (),
    own_weights: bool = False,
    seed: int = 0,
) -> PolicyFile:
    """An untrained policy for the hosts that a spec describes; its decisions do depend on what it sees.

    Args:
        spec: whose slots, features and actions it gets.
        scope: ``joint`` or ``device``.
        hidden: sizes of the hidden layers.
        numbers: the continuous part of its actions.
        own_weights: each device has its own.
        seed: of the weights.
    """
    devices, shared = device_columns(spec), shared_columns(spec)
    is_joint = scope == JOINT
    columns = [*devices * len(spec.slots), *shared] if is_joint else [*devices, *shared]
    scale = np.array([_SIZES.get(one.unit, 1.0) for one in columns], np.float32)
    head = Head("choice_and_numbers" if numbers else "categorical_per_device", spec.actions, numbers)
    outputs = head.outputs * (len(spec.slots) if is_joint else 1)
    return PolicyFile(
        scenario=HOSTS,
        scope=scope,
        slots=spec.slots,
        device_features=devices if is_joint else (*devices, *shared),
        shared_features=shared if is_joint else (),
        choices=action_names(spec),
        head=head,
        inputs=Inputs(np.zeros(len(columns), np.float32), scale, clip=10.0),
        networks={
            "actor": random_network(
                [len(columns), *hidden, outputs], seed, count=len(spec.slots) if own_weights else None
            )
        },
        learner="random",
    )
