"""Pod garbage collection: pods whose node is gone, that nobody will ever finish, or that nobody reads any more."""
