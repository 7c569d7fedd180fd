"""Token Secrets of ServiceAccounts: filled on request, gone with their account."""
