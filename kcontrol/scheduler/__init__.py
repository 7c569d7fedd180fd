"""The scheduler: queue → filter → score → assume → bind, plugins being pure functions over a frozen snapshot."""
