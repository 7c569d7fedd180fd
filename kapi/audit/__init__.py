"""Who did what, when: a policy chooses, a log keeps one JSON object a line."""
