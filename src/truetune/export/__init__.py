"""From a trained model to files that servers load. `merge` puts an adapter into its base."""

from truetune.export.merge import export

__all__ = ["export"]
