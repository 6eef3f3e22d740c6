"""Packs as Ray Tune trials: their workers, their checkpoints, and Tune's loop over them."""
