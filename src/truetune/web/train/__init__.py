"""The Train tab: the form of a training, and what follows from it."""
