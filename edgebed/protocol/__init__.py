"""How programs talk: messages, their bytes, who may speak, and who is still alive. See ``docs/protocol.md``."""
