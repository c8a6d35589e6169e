"""Every SQL statement of ConnectHub, and the embedded PostgreSQL."""
