"""The settings of every job: typed and frozen; `mlops.flags` reads them."""
