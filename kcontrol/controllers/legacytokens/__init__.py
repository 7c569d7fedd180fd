"""The cleaner of tokens in Secrets that nobody uses."""
