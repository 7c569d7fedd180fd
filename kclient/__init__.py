"""Everything that talks to the API: client, reflector, informer, work queue, leader election, events."""
