"""The Chat tab: models in processes of their own, and the conversation with them."""
