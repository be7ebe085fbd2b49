"""How the orchestrator reaches a host: the `Remote` contract (`base`) and its implementations."""
