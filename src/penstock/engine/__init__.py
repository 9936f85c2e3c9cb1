"""Tokens in, tokens out. Knows no text, no HTTP, no price. Importing this package does not load torch."""
