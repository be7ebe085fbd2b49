"""What turns a plan into outcomes from where the orchestrator stands: real hosts, for now."""
