"""Claims and volumes in use are not deleted: a finalizer holds them."""
