"""The wire formats. Only this room turns outside data into a `core.types.Request`, and only from fields that it knows."""
