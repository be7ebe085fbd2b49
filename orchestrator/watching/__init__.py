"""How a run or a training stands, told from its folder alone: read only, by whoever likes to look, while it goes on."""
