"""Tests on real virtual hosts: root, Linux. `make test-lab` runs them, `make test` does not."""
