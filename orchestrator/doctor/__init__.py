"""The doctor behind ``edgebed check``: what a host says of itself, and what that means for measuring on it."""
