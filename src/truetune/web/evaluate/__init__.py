"""The Evaluate tab: a model's scores, and its answers beside the references."""
