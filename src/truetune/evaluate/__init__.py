"""What a model makes of held-out rows beside their loss: answers that it writes, and scores that it gives.

Imports data, model and serve; never train, which calls it.
"""
