"""ServiceAccount: every namespace has a `default` one."""
