"""CustomResourceDefinitions: kinds that are declared at run time, from the check of the definition to their objects."""
