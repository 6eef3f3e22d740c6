"""A job to be sent to a cluster by `mlops.cluster.submission`, instead of the real ones."""
