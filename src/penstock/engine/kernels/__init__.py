"""The arithmetic of a decoder behind one protocol. Importing this package does not load torch."""
