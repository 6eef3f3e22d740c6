"""What a configuration is: hyperparameters, and the space that they are searched in."""
