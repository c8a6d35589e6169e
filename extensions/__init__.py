"""Plugins that come with ConnectHub. Copy one to start your own."""
