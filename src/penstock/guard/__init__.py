"""What may pass: a guard looks at each request before anything is computed and at each answer while it streams."""

from penstock.guard.protocol import AllowAll, Checked, Guard

__all__ = ["AllowAll", "Checked", "Guard"]
