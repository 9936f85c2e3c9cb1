"""Arithmetic on a CPU: the native library and the decoder that runs on it; `eager` is what torch can do without a compiler."""
