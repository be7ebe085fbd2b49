"""Opening a service: a front that is guarded, at an endpoint that others can find and that stays over restarts."""

from __future__ import annotations

import secrets
from pathlib import Path

from edgebed.clock import Clock
from edgebed.configuration import ControllerConfig, ServerConfig
from edgebed.protocol.codec import HeaderDecoder
from edgebed.protocol.endpoint import remembered_bind, write_endpoint
from edgebed.protocol.front import Context, Front, M
from edgebed.protocol.messages import MAX_PAYLOAD_BYTES, Role
from edgebed.protocol.security import AllowList, Gatekeeper, KeyPair


def listen(
    config: ServerConfig | ControllerConfig,
    program: str,
    decoder: HeaderDecoder[M],
    roles: frozenset[Role],
    context: Context,
    keys: KeyPair,
    clock: Clock,
    most_bytes: int = MAX_PAYLOAD_BYTES,
) -> tuple[Front[M], Gatekeeper]:
    """Listen as the settings say, and write the endpoint file.

    Whoever waits for the file may go on at once, so a program calls this before it loads anything heavy.

    Raises:
        BadInput: the allow-list is wrong, or the address cannot be listened on.
    """
    allow = AllowList.from_config(config.allow)
    gatekeeper = Gatekeeper(context, allow)
    endpoint_file = Path(config.state_dir) / f"{program}.endpoint"
    try:
        front: Front[M] = Front(
            context=context,
            bind=remembered_bind(config.bind, endpoint_file),
            keys=keys,
            allow=allow,
            decoder=decoder,
            clock=clock,
            limits=config.liveness,
            name=config.name,
            instance=secrets.token_hex(8),
            roles=roles,
            most_bytes=most_bytes,
        )
    except BaseException:
        gatekeeper.close()
        raise
    write_endpoint(endpoint_file, front.endpoint)
    return front, gatekeeper
