"""Bootstrap tokens: sign the public cluster description with them, and clear away those that have expired."""
