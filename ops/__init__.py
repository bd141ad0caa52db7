"""How a fleet is run: system packages, the demo, Flower, containers, systemd units. Nothing of it is installed."""
