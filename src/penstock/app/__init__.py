"""Build the object graph from `Settings`, once: for the server, and for a notebook."""
