"""The program beside the devices: it executes what they offload. Its subfolder ``controller`` is a program too."""
