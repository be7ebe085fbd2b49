"""A package, so that ``tests`` means this folder: mobile-env installs one of the same name."""
