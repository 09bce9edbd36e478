"""What runs by itself: jobs, the daemon, retention, history, objectives, metrics, notifications."""
