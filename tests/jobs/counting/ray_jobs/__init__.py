"""A job to be sent to a cluster by `mlops.submission`, instead of the real ones."""
