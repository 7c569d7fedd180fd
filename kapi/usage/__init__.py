"""The metrics API's source: the node agents' figures, asked for when somebody asks us."""
