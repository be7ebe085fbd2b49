"""System models in virtual time: an engine for batches of environments, its small models, and the papers' scenarios."""
