"""Joint observations and decisions on the wire, for whoever decides outside of the controller's process."""

from __future__ import annotations

import numpy as np

from edgebed.errors import ProtocolError
from edgebed.protocol.messages import ErrorCode, JointDecide, JointObserve
from edgebed.types import Decision, Observation, ObservationSpec


def joint_message(observation: Observation, serial: int, *, is_last: bool = False) -> JointObserve:
    """What an external decider is shown; ``is_last`` when there is nothing to decide any more."""
    return JointObserve(
        serial,
        observation.epoch,
        observation.values.ravel().tolist(),
        observation.present.tolist(),
        observation.age_s.tolist(),
        observation.server.tolist(),
        observation.allowed_actions.tobytes(),
        is_last,
    )


def observation_from(message: JointObserve, spec: ObservationSpec) -> Observation:
    """What an external decider was shown, as an observation.

    Raises:
        ProtocolError: the arrays do not have the spec's sizes.
    """
    slots = len(spec.slots)
    try:
        return Observation(
            values=np.array(message.values, np.float32).reshape(slots, len(spec.device_features)),
            present=np.array(message.present, np.bool_).reshape(slots),
            age_s=np.array(message.age_s, np.float32).reshape(slots),
            server=np.array(message.server, np.float32).reshape(len(spec.servers) * spec.server_width),
            allowed_actions=np.frombuffer(message.allowed_actions, np.bool_).reshape(slots, spec.actions).copy(),
            epoch=message.epoch,
        )
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_MESSAGE, f"a joint observation that does not fit: {error}") from None


def decision_from(message: JointDecide, spec: ObservationSpec) -> Decision:
    """What an external decider answered, checked.

    Raises:
        BadInput: a value is out of range, or a list has the wrong length.
        ProtocolError: a number that does not fit its type.
    """
    try:
        decision = Decision(
            site=np.array(message.site, np.int32),
            server=np.array(message.server, np.int32),
            channel=np.array(message.channel, np.int32),
            edge_fraction=np.array(message.edge_fraction, np.float32),
            cpu_fraction=np.array(message.cpu_fraction, np.float32),
            power_fraction=np.array(message.power_fraction, np.float32),
        )
    except (OverflowError, ValueError) as error:
        raise ProtocolError(ErrorCode.BAD_MESSAGE, f"a joint decision that does not fit: {error}") from None
    decision.check(spec)
    return decision


def decision_message(decision: Decision, serial: int, epoch: int, policy_version: str) -> JointDecide:
    """A decision as an external decider sends it."""
    return JointDecide(
        serial,
        epoch,
        decision.site.tolist(),
        decision.server.tolist(),
        decision.channel.tolist(),
        decision.edge_fraction.tolist(),
        decision.cpu_fraction.tolist(),
        decision.power_fraction.tolist(),
        policy_version,
    )
