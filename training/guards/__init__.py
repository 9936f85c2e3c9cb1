"""The guards' trained heads: data, training and the split that the benchmark shares."""
