"""CronJob: a Job at every time that a schedule names."""
