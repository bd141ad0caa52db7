"""The control plane: what is protected, when, and by which proxy. It never touches backup data."""
