"""Who is served when everybody asks at once: priority levels, fair queues, turns, in-flight limits."""
