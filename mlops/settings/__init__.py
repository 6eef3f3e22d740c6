"""The settings of every job: typed and frozen; `mlops.settings.flags` reads them."""
