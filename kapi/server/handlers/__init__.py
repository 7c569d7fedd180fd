"""One module per verb or connect subresource."""
