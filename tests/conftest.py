"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# Machines are shared and slow at times: how long an example takes says nothing. And a test that fails must fail again.
settings.register_profile("edgebed", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("edgebed")
