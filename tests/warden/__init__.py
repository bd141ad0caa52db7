"""The warden of hardened repositories, on a real file system with real flags. Needs root."""
