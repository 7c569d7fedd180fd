"""What the node, its pods and their containers use: sampled, turned into rates, and shown (cAdvisor's role)."""
