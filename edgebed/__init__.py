"""edgebed: a physical testbed for computation offloading. This package is the library that its programs share."""

__version__ = "0.1.0"
