"""CertificateSigningRequests: approve those of nodes, sign what is approved, clear away what is old."""
