"""HTTP in, bytes out: wire formats, server-sent events, limits, probes. Holds no model and imports no torch."""
