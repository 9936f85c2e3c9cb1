"""Model files on disk: where they are, what format they have, and the containers that need no torch to read."""

from penstock.files.locate import BUILTIN, ModelFiles, locate

__all__ = ["BUILTIN", "ModelFiles", "locate"]
