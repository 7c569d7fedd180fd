"""The generic resource: what a Kind is and what every Kind does alike."""
