"""The control server: sessions, the data servers they need, and the gRPC services that reach them."""
