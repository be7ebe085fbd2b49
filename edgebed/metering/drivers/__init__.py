"""One file a driver; `edgebed.metering.registry` walks this folder."""
