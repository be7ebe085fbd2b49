"""The controller: hosts a central policy, ticks the epochs, and is where everyone meets. It is allowed to die."""
