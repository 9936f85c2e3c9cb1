"""The nouns: types, errors, config and clock. Imports nothing but the standard library and msgspec."""
