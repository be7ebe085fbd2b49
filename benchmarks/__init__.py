"""What the product promises in numbers, each measured as a ratio within one run; ``python -m benchmarks.run_all``."""
