"""The Pod Security Standards as data and pure checks."""
