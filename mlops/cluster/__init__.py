"""Where work runs: Ray, its machines, and jobs that are sent there."""
