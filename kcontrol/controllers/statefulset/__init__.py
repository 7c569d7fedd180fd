"""StatefulSet: pods with names that stay, created and replaced in order, each with claims of its own."""
