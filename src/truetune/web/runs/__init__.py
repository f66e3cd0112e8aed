"""The Runs tab: what trains and has trained, drawn from the runs' folders."""
