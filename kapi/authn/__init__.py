"""Who is it? One file per authenticator."""
