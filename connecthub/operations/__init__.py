"""What people in operations do to a hub from the command line: check it, back it up, change its keys."""
