"""The Data tab: data sets added, mapped, looked at and edited."""
