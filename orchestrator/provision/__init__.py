"""What is done to a host so that the programs run there: folders, keys, settings, supervised processes."""
