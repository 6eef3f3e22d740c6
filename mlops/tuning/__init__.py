"""The study: search, packs as Ray Tune trials, and their assembly."""
