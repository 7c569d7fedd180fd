"""Pod workers: desired pod × observed containers → actions and status."""
