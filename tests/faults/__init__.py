"""What happens when processes die, databases fall over, clocks jump and plugins misbehave; see README.md."""
