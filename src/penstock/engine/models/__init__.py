"""Models as data: architectures are rows of a table, one decoder reads the row. Importing this package does not load torch."""
