"""The program on each device: tasks arrive, are decided, run here or at an edge server, and leave one row each."""
