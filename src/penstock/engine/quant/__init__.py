"""Number formats of weights and the methods that produce them."""
