"""Ephemeral volumes: claims that live as long as their pod."""
