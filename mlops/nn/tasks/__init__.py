"""What a prediction is, by kind: outputs and loss, metrics, decision and shape of an answer."""
