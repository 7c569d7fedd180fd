"""May they? One file per authorizer."""
